"""A hook of the docs' build: long codes (IDLE_TIMEOUT_CALLBACK_FAILED) may break behind an underscore."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"(?<=>)(\s*[A-Z]+(?:_[A-Z]+)+\s*)(?=<)")


def on_post_page(output: str, **_: Any) -> str:
    """The page's HTML, with a place to break in every such code that is an element's whole text."""
    return _CODE.sub(lambda code: code[0].replace("_", "_<wbr>"), output)
