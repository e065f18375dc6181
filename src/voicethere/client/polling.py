"""When to ask again: the schedule of polls and of retries. No I/O."""

from __future__ import annotations

from collections.abc import Callable

RETRY_DELAYS_SECONDS = (0.25, 0.75, 1.5)
"""After 502, 503, 504 and connection failures; then the client gives up."""
RETRIED_STATUSES = frozenset({502, 503, 504})

_MULTIPLIERS = (1, 2, 3, 5)
_MAX_DELAY_SECONDS = 5.0
_HINT_RANGE_MS = (250.0, 5000.0)
_JITTER = 0.1


class PollSchedule:
    """Delays between polls: base times 1, 2, 3, 5 while nothing changes, and from 1 again when it does.

    `random` gives numbers in [0, 1); with it each delay varies by ±10 %.
    """

    def __init__(self, base_seconds: float, random: Callable[[], float]) -> None:
        self._base = base_seconds
        self._random = random
        self._step = 0
        self._seen: tuple[str, int | None] | None = None

    def next_delay(self, status: str, queue_position: int | None, hint_ms: float | None = None) -> float:
        """Seconds until the next poll, after one that showed this. A server's hint wins, within bounds."""
        seen = (status, queue_position)
        self._step = 0 if seen != self._seen else min(self._step + 1, len(_MULTIPLIERS) - 1)
        self._seen = seen
        if hint_ms is not None:
            low, high = _HINT_RANGE_MS
            return min(max(hint_ms, low), high) / 1000
        jitter = 1 - _JITTER + 2 * _JITTER * self._random()
        return min(self._base * _MULTIPLIERS[self._step] * jitter, _MAX_DELAY_SECONDS)
