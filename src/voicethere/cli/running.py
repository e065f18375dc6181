"""What runs in this process: tasks that must not end by themselves, and an orderly end for all of them.

Knows no role by name. Every command that serves (`up`, `serve …`) stands on this.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import structlog

_log = structlog.get_logger(__name__)


class Running:
    """Use as `async with Running.start() as running:`; leaving ends everything, the last one first.

    Example:
        >>> async with Running.start() as running:
        ...     await running.role("worker", worker.run(), worker.stop)
        ...     await running.until_stopped()
    """

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self.stack = stack
        """Takes what must be closed at the end."""
        self.stopped = asyncio.Event()
        """Set by whoever wants the process to end."""
        self.leaving = asyncio.Event()
        """Set once the end has begun: from then on roles may end."""
        self.problem: str | None = None
        """Why it ended by itself; None where it was asked to."""

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls) -> AsyncIterator[Running]:
        """Nothing runs yet."""
        async with contextlib.AsyncExitStack() as stack:
            running = cls(stack)
            stack.callback(running.leaving.set)
            yield running
            running.leaving.set()

    async def role(
        self,
        name: str,
        work: Coroutine[Any, Any, None],
        stop: Callable[[], Awaitable[None] | None] | None = None,
    ) -> None:
        """Run `work` until the end, then `stop` it (or cancel it). One that ends before ends the process."""
        task = asyncio.create_task(work, name=name)

        def over(done: asyncio.Task[None]) -> None:
            if self.leaving.is_set() or done.cancelled():
                return
            error = done.exception()
            self.problem = f"the {name} ended" + (f": {error}" if error else "")
            _log.error("role_ended", role=name, exc_info=error)
            self.stopped.set()

        task.add_done_callback(over)

        async def end() -> None:
            self.leaving.set()
            if stop is None:
                task.cancel()
            elif (stopping := stop()) is not None:
                await stopping
            await asyncio.wait([task])

        self.stack.push_async_callback(end)

    async def until_stopped(self) -> str | None:
        """Return at SIGTERM, SIGINT, or when a role has ended by itself: then with the reason."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stopped.set)
        await self.stopped.wait()
        return self.problem
