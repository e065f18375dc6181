"""The browsable page of the API, as it renders: nothing from elsewhere, nothing wider than the screen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.chromium import chromium
from voicethere.testing.platform_process import RunningPlatform

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

SCREENS = {"desktop": (1280, 900), "phone": (390, 844)}
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter(e => e.getBoundingClientRect().right > window.innerWidth + 1)
  .map(e => `${e.tagName}.${e.className}`)"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest.mark.parametrize("screen", SCREENS)
async def test_the_api_page_renders_from_this_server_alone_and_fits_the_screen(
    browser: Browser, platform: RunningPlatform, screen: str, tmp_path: Path
) -> None:
    width, height = SCREENS[screen]
    page = await browser.new_page(viewport={"width": width, "height": height})
    problems: list[str] = []
    asked: list[str] = []
    page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(f"{request.url}: {request.failure}"))
    page.on("request", lambda request: asked.append(request.url))
    try:
        await page.goto(f"{platform.base_url}/docs", wait_until="load")
        await page.get_by_text("/v1/sessions", exact=True).wait_for()
        assert "VoiceThere" in await page.title()
        assert await page.locator(".opblock").count() > 20
        await _fits(page, width)
        print(f"\nscreenshots in {tmp_path}")
        await page.screenshot(path=tmp_path / f"docs-{screen}.png", full_page=True)

        await page.locator("#operations-sessions-startSession .opblock-summary-control").click()
        await page.get_by_text("Request body", exact=True).wait_for()
        await _fits(page, width)
        example = await page.locator(".responses-table .highlight-code").first.bounding_box()
        assert example is not None
        assert example["width"] > 0.75 * width, "the answers' examples are squeezed"
        await page.screenshot(path=tmp_path / f"docs-{screen}-operation.png", full_page=True)
    finally:
        await page.close()
    assert problems == []
    elsewhere = [url for url in asked if not url.startswith((platform.base_url + "/", "data:"))]
    assert elsewhere == []


async def _fits(page: Page, width: int) -> None:
    """Nothing makes the page itself scroll sideways."""
    scrolled = await page.evaluate("() => document.documentElement.scrollWidth")
    assert scrolled <= width, await page.evaluate(TOO_WIDE)
