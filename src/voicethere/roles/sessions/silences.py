"""How long each linked runner has said nothing. Numbers in, names out: no timer in here.

A service that was itself held up must not blame its runners for it: what they said meanwhile is read only
after the clock was looked at. So one look counts for a bounded step at most.
"""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST_STEP = 1.0
"""Seconds. `too_long` is asked a few times a second."""


class Silences:
    """`now` is in seconds of a clock that never jumps.

    Example:
        >>> silences = Silences(limit_seconds=1.5)
        >>> silences.heard("r-1")
        >>> [silences.too_long(now) for now in (10.0, 11.0, 12.0, 13.0)]
        [[], [], ['r-1'], []]
    """

    def __init__(self, *, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._silent: dict[str, float] = {}
        self._looked_at: float | None = None

    def heard(self, runner_id: str) -> None:
        """It said something."""
        self._silent[runner_id] = 0.0

    def forget(self, runner_id: str) -> None:
        """It is not linked any more."""
        self._silent.pop(runner_id, None)

    def excuse(self) -> None:
        """Nobody could be heard: all silences begin anew."""
        self._silent = dict.fromkeys(self._silent, 0.0)
        self._looked_at = None

    def too_long(self, now: float) -> Sequence[str]:
        """Those that have been silent for too long; each is named once, and then forgotten."""
        step = 0.0 if self._looked_at is None else min(now - self._looked_at, _LONGEST_STEP)
        self._looked_at = now
        for runner_id in self._silent:
            self._silent[runner_id] += step
        late = [runner_id for runner_id, seconds in self._silent.items() if seconds >= self._limit]
        for runner_id in late:
            del self._silent[runner_id]
        return late
