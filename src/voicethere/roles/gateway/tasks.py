"""Tasks that nobody awaits: kept, named, never failing in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import structlog

_CANCEL_AGAIN_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Tasks:
    """Holds on to tasks until they are done; logs what they raise."""

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
            _log.error("task_failed", task=task.get_name(), exc_info=error)

    async def aclose(self) -> None:
        """Cancel what still runs."""
        await self.cancelled(self._tasks)

    @staticmethod
    async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Cancel until all have ended. Once is not always enough: before Python 3.12 `wait_for` forgets a
        cancellation that comes in the very moment in which what it waited for is done."""
        remaining = {task for task in tasks if not task.done()}
        while remaining:
            for task in remaining:
                task.cancel()
            _, remaining = await asyncio.wait(remaining, timeout=_CANCEL_AGAIN_SECONDS)
