"""The docs' pictures of the terminal client are made by the code, and load nothing from elsewhere."""

from __future__ import annotations

import re

from tools.chat_pictures import _failed, _picture


async def test_a_picture_shows_the_screen_and_loads_nothing() -> None:
    picture = await _picture((40, 20), _failed())
    assert "AGENT_HANDLER_FAILED" in picture
    assert "connected" in picture
    assert "@font-face" not in picture
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", picture))
