"""One platform for the end-to-end tests of a module, and agents to deploy on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from voicethere.testing.platform_process import Operator, RunningPlatform, fresh_platform


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[RunningPlatform]:
    async with fresh_platform() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(platform: RunningPlatform) -> AsyncIterator[Operator]:
    async with Operator(platform) as working:
        yield working
