"""What runs in this process: tasks that must not end by themselves, and an orderly end for all of them.

Knows no role by name. Every command that serves (`up`, `serve …`) stands on this.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

from voicethere.roles.background import cancelled

T = TypeVar("T")

_log = structlog.get_logger(__name__)


SLOW_END_SECONDS = 15.0
CANCEL_AGAIN_SECONDS = 10.0
MAX_NAMED_TASKS = 50


class Stopped(Exception):
    """The process was asked to end before it served."""


class Running:
    """Use as `async with Running.start() as running:`; leaving ends everything, the last one first.

    From `start` on SIGTERM and SIGINT are ours: the first sets `stopped`, any further one `hurried`.

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
        self.hurried = asyncio.Event()
        """Set where the end must not wait for anybody any more."""
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
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, running.ask_to_stop)
            watching = asyncio.create_task(running._say_what_is_left(), name="the end's watch")
            stack.callback(watching.cancel)
            stack.callback(running.leaving.set)
            yield running
            running.leaving.set()

    def ask_to_stop(self) -> None:
        """Begin the end in order; asked again, hurry."""
        if self.stopped.is_set():
            self.hurried.set()
        self.stopped.set()

    def stop_at_once(self) -> None:
        """Whoever wanted us is gone: end in order, and wait for nobody."""
        self.stopped.set()
        self.hurried.set()

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` comes to.

        Raises:
            Stopped: the process was asked to end meanwhile; `work` is cancelled.
        """
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self.stopped.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopped
            return task.result()
        finally:
            await cancelled((task, stopped), again_seconds=CANCEL_AGAIN_SECONDS)

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
            if self.stopped.is_set() and error is None:
                return
            self.problem = f"the {name} ended" + (f": {error}" if error else "")
            _log.error("role_ended", role_name=name, exc_info=error)
            self.stopped.set()

        task.add_done_callback(over)

        async def end() -> None:
            self.leaving.set()
            if stop is None:
                await cancelled((task,), again_seconds=CANCEL_AGAIN_SECONDS)
                return
            if (stopping := stop()) is not None:
                await stopping
            await asyncio.wait([task])

        self.stack.push_async_callback(end)

    async def _say_what_is_left(self) -> None:
        """An end that takes long says what it waits for: whoever kills us then can tell why."""
        await self.leaving.wait()
        while True:
            await asyncio.sleep(SLOW_END_SECONDS)
            tasks = sorted(
                task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()
            )
            _log.warning("still_ending", tasks=tasks[:MAX_NAMED_TASKS])

    async def until_stopped(self, *, linger_seconds: float = 0.0) -> str | None:
        """Return at SIGTERM, SIGINT, or when a role has ended by itself: then with the reason.

        Asked to end, everything goes on for `linger_seconds` more, unless somebody hurries.
        """
        await self.stopped.wait()
        if linger_seconds and self.problem is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.hurried.wait(), linger_seconds)
        return self.problem
