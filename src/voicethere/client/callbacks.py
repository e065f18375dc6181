"""Calling what the application gave us, without letting it break the session.

A callback may be a plain function, called at once, or an async one, run in the order of its calls. One
that raises is logged; one that falls far behind loses calls, which are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

_log = logging.getLogger("voicethere.client")

T = TypeVar("T")
Callback = Callable[[T], Awaitable[None] | None]
"""Plain or async; what it returns does not matter."""

_MAX_WAITING = 1000


class CallbackLane(Generic[T]):
    """The calls of one callback, in order."""

    def __init__(self, name: str, callback: Callback[T] | None) -> None:
        self._name = name
        self._callback = callback
        self._waiting: deque[Awaitable[Any]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._spared = False
        self.dropped = 0
        self.failures = 0

    @property
    def wanted(self) -> bool:
        """Whether there is a callback at all."""
        return self._callback is not None

    def call(self, value: T) -> None:
        """Call it, now or after the calls that still run."""
        if self._callback is None:
            return
        if len(self._waiting) >= _MAX_WAITING:
            self.dropped += 1
            if self.dropped == 1:
                _log.warning("%s does not keep up: calls are dropped", self._name)
            return
        try:
            result = self._callback(value)
        except Exception:
            self._failed()
            return
        if inspect.isawaitable(result):
            self._waiting.append(result)
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name=f"callback-{self._name}")

    async def _run(self) -> None:
        while self._waiting:
            try:
                await self._waiting.popleft()
            except Exception:
                self._failed()
        self._task = None

    def _failed(self) -> None:
        self.failures += 1
        _log.exception("%s raised; the session goes on", self._name)

    def spare(self, task: asyncio.Task[Any] | None) -> None:
        """If `task` is the callback itself, waiting for the session's end: do not wait for it in turn."""
        if task is not None and task is self._task:
            self._spared = True

    async def finish(self, timeout: float) -> None:
        """Let the calls made so far end, for `timeout` seconds; then cancel them."""
        task = self._task
        if task is None or self._spared:
            return
        await asyncio.wait([task], timeout=timeout)
        if not task.done():
            _log.warning("%s still ran %g s after the session's end and was cancelled", self._name, timeout)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for waiting in self._waiting:
            if inspect.iscoroutine(waiting):
                waiting.close()
        self._waiting.clear()


async def call_once(name: str, callback: Callback[T] | None, value: T) -> None:
    """Call and, where it is async, await a callback; log it when it raises."""
    if callback is None:
        return
    try:
        result = callback(value)
        if inspect.isawaitable(result):
            await result
    except Exception:
        _log.exception("%s raised", name)
