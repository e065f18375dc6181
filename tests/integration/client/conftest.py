"""Every test here must leave nothing behind: no task, no thread, no file descriptor."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator

import pytest


@pytest.fixture(autouse=True)
async def nothing_left_over() -> AsyncIterator[None]:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    descriptors = _sockets()
    yield
    async with asyncio.timeout(5):
        while left := (asyncio.all_tasks() - tasks - {asyncio.current_task()}):
            await asyncio.wait(left, timeout=0.05)
    gc.collect()
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
        assert not thread.is_alive(), f"thread {thread.name} is left"
    await asyncio.sleep(0)
    assert _sockets() <= descriptors


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
