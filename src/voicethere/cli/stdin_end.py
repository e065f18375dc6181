"""Ending with whoever started us: standard input closes when they are gone, however they went."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable


async def when_stdin_closes(ended: Callable[[], None]) -> None:
    """Have `ended` called, on the event loop, when standard input closes. Returns at once."""
    await asyncio.get_running_loop().connect_read_pipe(lambda: _Watch(ended), sys.stdin.buffer)


class _Watch(asyncio.Protocol):
    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()
