"""An event loop whose time is made up: where it would wait for a timer, the time is there at once.

Hours of timers run in milliseconds, in the right order. Sockets are real, and what is ready on one comes
first; but nothing waits for one while a timer is set, so other processes and threads see no time pass:
use it with in-memory parts only.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_EPOCH = 1_781_870_400.0
_STUCK_SECONDS = 10.0


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            ready = super().select(_STUCK_SECONDS)
            if not ready:
                raise RuntimeError("nothing is left that this event loop could wait for")
            return ready
        ready = super().select(0)
        if not ready and timeout > 0:
            self.passed += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Begins at 0 seconds."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds since the loop was made, all of them made up."""
        return self._virtual.passed


class LoopClock:
    """Implements `voicethere.core.ports.Clock` on the running loop's time, from 2026-06-19, 12:00."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return _EPOCH + self.monotonic()

    def monotonic(self) -> float:
        """Seconds of the loop."""
        return asyncio.get_running_loop().time()


def in_virtual_time(work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make a coroutine function (a test, say) a plain one, which runs it to its end on a loop of its own.

    Example:
        >>> @in_virtual_time
        ... async def test_a_long_wait() -> None:
        ...     await asyncio.sleep(3600)
    """

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(work(*args, **kwargs))

    return run
