"""Tasks that nobody awaits, kept, named, and never failing in silence. For every role, and what runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import structlog

_CANCEL_AGAIN_SECONDS = 1.0

_log = structlog.get_logger(__name__)


async def cancelled(
    tasks: Iterable[asyncio.Task[Any]], *, again_seconds: float = _CANCEL_AGAIN_SECONDS
) -> None:
    """Cancel until all have ended: again every `again_seconds`, which is what a task has for cleaning up.

    Once is not always enough: before Python 3.12 `wait_for` forgets a cancellation that comes in the very
    moment in which what it waited for is done.
    """
    remaining = {task for task in tasks if not task.done()}
    while remaining:
        for task in remaining:
            task.cancel()
        _, remaining = await asyncio.wait(remaining, timeout=again_seconds)


class Background:
    """Holds on to tasks until they are done; logs what they raise.

    Example:
        >>> background.spawn(hub.send(runner_id, message), name="cancel s-1")
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run `work` now, as a task of its own."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background_task_failed", task=task.get_name(), exc_info=error)

    async def aclose(self, *, patience_seconds: float = 0.0) -> None:
        """Give what still runs `patience_seconds` to finish, then cancel it."""
        if self._tasks and patience_seconds:
            await asyncio.wait(set(self._tasks), timeout=patience_seconds)
        await cancelled(self._tasks)
