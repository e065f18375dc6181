"""A clock that stands still until a test moves it."""

from __future__ import annotations

from voicethere.errors.times import iso_from_epoch


class ManualClock:
    """Implements `voicethere.core.ports.Clock`.

    Example:
        >>> clock = ManualClock()
        >>> clock.advance(30.0)
    """

    def __init__(self, now: float = 1_781_870_400.0, monotonic: float = 1_000.0) -> None:
        """`now` is in seconds since the epoch (default: 2026-06-19T12:00:00Z)."""
        self._now = now
        self._monotonic = monotonic

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds of the clock that never jumps."""
        return self._monotonic

    def wire_time(self) -> str:
        """`now()` as messages write it."""
        return iso_from_epoch(self._now)

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks.

        Raises:
            ValueError: `seconds` is negative; `set_now` is what makes a wall clock jump back.
        """
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds}")
        self._now += seconds
        self._monotonic += seconds

    def set_now(self, now: float) -> None:
        """Make the wall clock jump, as an operator or a time server does; the other clock does not move."""
        self._now = now
