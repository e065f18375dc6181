"""A whole platform with an agent that chats; what its processes log is kept, and must hold no error."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

import msgspec
import pytest_asyncio

from tests.integration.chat_proxy.agents import TALKATIVE
from voicethere.testing.platform_process import Operator, fresh_platform


class Gateway(msgspec.Struct, frozen=True):
    """A real gateway: the base URL of its chats, and the project behind it."""

    base_url: str
    project_id: str
    operator: Operator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    log: deque[str] = deque(maxlen=10_000)
    async with fresh_platform(["--log-level=WARNING"], log=log) as platform, Operator(platform) as operator:
        deployed = await operator.deploy(TALKATIVE, name="talkative", mode="data")
        yield Gateway(f"{platform.base_url}/c/{deployed.client_key}", deployed.project_id, operator)
    # Whatever a network does to a connection is no fault of the server's.
    assert [line for line in log if "error" in line.lower() or "Traceback" in line] == []
