"""The clock of the machine, as the port `Clock` wants it.

Only compositions and defaults use it; decisions take the clock that they are given.
"""

from __future__ import annotations

import time


class SystemClock:
    """Implements `voicethere.core.ports.Clock` with the operating system's clocks."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps."""
        return time.monotonic()
