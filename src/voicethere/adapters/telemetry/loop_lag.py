"""How late the event loop is: what is due now may start only when whatever runs lets go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SAMPLE_SECONDS = 0.25


class LoopLag:
    """`last` and `worst` in seconds; `worst` is the largest since it was last taken."""

    def __init__(self) -> None:
        self.last = 0.0
        self._worst = 0.0

    async def measure(self, observe: Callable[[float], None] | None = None) -> None:
        """Sample a few times a second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + SAMPLE_SECONDS
            await asyncio.sleep(SAMPLE_SECONDS)
            self.last = max(0.0, loop.time() - due)
            self._worst = max(self._worst, self.last)
            if observe is not None:
                observe(self.last)

    def take_worst(self) -> float:
        """The largest since the last call."""
        worst, self._worst = self._worst, self.last
        return worst
