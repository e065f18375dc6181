"""A platform of a command's own, whose not starting is told in one plain line, whatever it was.

Knows what the kit's servers and processes raise. Does not know which of them a command wants.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from voicethere.testing.platform_process import PlatformFailed
from voicethere.testing.postgres_server import PostgresMissing
from voicethere.testing.redis_server import RedisNotStarted
from voicethere.testing.role_process import RoleFailed

Platform = TypeVar("Platform")


@contextlib.asynccontextmanager
async def starting(platform: AbstractAsyncContextManager[Platform]) -> AsyncIterator[Platform]:
    """`platform`, entered. Any other error of what is done on it passes through.

    Raises:
        PlatformFailed: it did not start, or a process of it did not start again or end; why.
    """
    try:
        async with contextlib.AsyncExitStack() as stack:
            try:
                running = await stack.enter_async_context(platform)
            except OSError as problem:  # no port, no room, no process; TimeoutError is one, and has no words
                why = str(problem) or "a process of it was not ready in time"
                raise PlatformFailed(f"the platform could not be started on this machine: {why}") from problem
            yield running
    except (PostgresMissing, RedisNotStarted, RoleFailed) as problem:
        raise PlatformFailed(str(problem)) from problem
