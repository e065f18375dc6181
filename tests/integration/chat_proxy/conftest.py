"""A whole platform with an agent that chats; what its processes log is kept, and must hold no error."""

from __future__ import annotations

import gc
import warnings
from collections import deque
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
import pytest_asyncio

from tests.integration.chat_proxy.agents import TALKATIVE
from voicethere.testing.platform_process import Operator, fresh_platform


class Gateway(msgspec.Struct, frozen=True):
    """A real gateway: the base URL of its chats, and the project behind it."""

    base_url: str
    project_id: str
    operator: Operator


@pytest.fixture(autouse=True)
def forgotten_connections() -> Iterator[None]:
    """Collect them in the test that they are of.

    httpcore 1.0 takes all dead connections out of its pool and then closes one after the other: cancelled
    in the middle of that, as a client that loses its socket cancels its snapshot, it forgets the rest.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed", ResourceWarning)
        yield
        gc.collect()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    log: deque[str] = deque(maxlen=10_000)
    async with fresh_platform(["--log-level=WARNING"], log=log) as platform, Operator(platform) as operator:
        deployed = await operator.deploy(TALKATIVE, name="talkative", mode="data")
        yield Gateway(f"{platform.base_url}/c/{deployed.client_key}", deployed.project_id, operator)
    # Whatever a network does to a connection is no fault of the server's.
    assert [line for line in log if "error" in line.lower() or "Traceback" in line] == []
