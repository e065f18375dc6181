"""How long to wait before a lost socket is opened again: exponential, capped, with full jitter.

Knows no socket and no timer.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from voicethere.core.chat import checks


class Reconnecting(msgspec.Struct, frozen=True, kw_only=True):
    """The waits, in seconds: before try n (from 0) anything up to `first * factor ** n`, at most `longest`.

    The random part ("full jitter") keeps the clients of a restarted server from coming back all at once. A
    connection that held for `stable` seconds begins anew at `first`.

    Raises:
        TypeError: a field that is not a number.
        ValueError: times that are not positive, a factor below 1, or a `longest` below `first`.
    """

    first: float = 0.5
    factor: float = 2.0
    longest: float = 30.0
    stable: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if checks.number(getattr(self, name), name) <= 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)}")
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, not {self.factor}")
        if self.longest < self.first:
            raise ValueError(f"longest ({self.longest}) must not be below first ({self.first})")


class Backoff:
    """The waits of one conversation. `uniform(0, most)` chooses within a wait; tests pass their own."""

    def __init__(
        self, rule: Reconnecting, *, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._rule = rule
        self._uniform = uniform
        self._most = rule.first

    def next(self, held_seconds: float) -> float:
        """How long to wait, in seconds, after a connection that was open for `held_seconds` (0: never)."""
        if held_seconds >= self._rule.stable:
            self._most = self._rule.first
        wait = self._uniform(0.0, self._most)
        self._most = min(self._most * self._rule.factor, self._rule.longest)
        return wait
