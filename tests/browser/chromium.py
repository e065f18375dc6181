"""A real Chromium, the system's own, driven by playwright. Knows how it is found and started."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence

import pytest
from playwright.async_api import Browser, async_playwright

VISIBLE = "VOICETHERE_BROWSER_VISIBLE"
"""The environment variable that, when set, shows the browser and slows it down."""

_NAMES = ("chromium", "chromium-browser")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A page that nobody has clicked on may play what it receives.
    "--autoplay-policy=no-user-gesture-required",
)


def chromium_path() -> str:
    """Where Chromium is. Fails the test where there is none: skipped, these tests would prove nothing."""
    for name in _NAMES:
        if (path := shutil.which(name)) is not None:
            return path
    pytest.fail(
        f"no Chromium: none of {', '.join(_NAMES)} is on the PATH. Install the Debian package `chromium`: "
        "apt-get install chromium (without the browser tests: pytest -m 'not browser')",
        pytrace=False,
    )


@contextlib.asynccontextmanager
async def chromium(flags: Sequence[str] = ()) -> AsyncIterator[Browser]:
    """A browser with further command-line `flags`, closed afterwards."""
    visible = bool(os.environ.get(VISIBLE))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium_path(),
            headless=not visible,
            slow_mo=250 if visible else 0,
            args=[*_FLAGS, *flags],
        )
        try:
            yield browser
        finally:
            await browser.close()
