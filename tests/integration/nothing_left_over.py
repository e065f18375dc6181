"""Every test here must leave nothing behind: no task, thread or socket, no complaint of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator

import pytest


@pytest.fixture(autouse=True)
async def nothing_left_over(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    descriptors = _sockets()
    yield
    left = asyncio.all_tasks() - tasks - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=10)  # closing a peer may take 5 s
    assert not left
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
        assert not thread.is_alive(), f"thread {thread.name} is left"
    await asyncio.sleep(0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):  # one that is closed goes once what is left in it was sent
            while not _sockets() <= descriptors:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
    assert _sockets() <= descriptors
    complaints = [each for each in caplog.get_records("call") if each.name == "asyncio"]
    assert [each.getMessage() for each in complaints] == []


def _sockets() -> set[str]:
    """The sockets this process holds, by their inode."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found
