"""One platform and one page server per module of browser tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.browser.page_server import served_page
from voicethere.testing.platform_process import Operator, RunningPlatform, fresh_platform


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[RunningPlatform]:
    async with fresh_platform() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(platform: RunningPlatform) -> AsyncIterator[Operator]:
    async with Operator(platform) as working:
        yield working


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Where the tests' own page is served: another origin than the platform's."""
    with served_page() as at:
        yield at
