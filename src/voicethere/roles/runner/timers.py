"""Named timers of one session, on the event loop's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voicethere.core.session import Timer


class Timers:
    """At most one running timer per name; setting one again restarts it."""

    def __init__(self, fired: Callable[[Timer], None]) -> None:
        self._fired = fired
        self._running: dict[Timer, asyncio.TimerHandle] = {}

    def set(self, timer: Timer, seconds: float) -> None:
        """Fire `timer` once, `seconds` from now."""
        self.cancel(timer)
        self._running[timer] = asyncio.get_running_loop().call_later(seconds, self._fire, timer)

    def cancel(self, timer: Timer) -> None:
        """Stop `timer`; harmless when it is not running."""
        handle = self._running.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def cancel_all(self) -> None:
        """Stop every timer."""
        for timer in tuple(self._running):
            self.cancel(timer)

    def _fire(self, timer: Timer) -> None:
        del self._running[timer]
        self._fired(timer)
