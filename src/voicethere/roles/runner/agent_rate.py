"""How much an agent may send: token buckets over a clock that is passed in."""

from __future__ import annotations


class TokenBucket:
    """`burst` at once, `per_second` in the long run.

    Example:
        >>> bucket = TokenBucket(burst=2, per_second=1, now=0.0)
        >>> [bucket.take(now=0.0) for _ in range(3)]
        [True, True, False]
    """

    def __init__(self, *, burst: float, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._tokens = burst
        self._at = now

    def take(self, amount: float = 1.0, *, now: float) -> bool:
        """Whether `amount` is still within the rate; only then it is used up."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._per_second)
        self._at = max(self._at, now)
        if amount > self._tokens:
            return False
        self._tokens -= amount
        return True


class MessageGate:
    """What one child may ask of its clients' connections (speech included).

    1,000 messages at once and 500 a second; 16 MiB at once and 4 MiB a second.
    """

    def __init__(self, now: float) -> None:
        self._messages = TokenBucket(burst=1000, per_second=500, now=now)
        self._bytes = TokenBucket(burst=16 * 1024 * 1024, per_second=4 * 1024 * 1024, now=now)
        self._remarks = TokenBucket(burst=1, per_second=1, now=now)
        self._refused = 0

    def allows(self, size: int, *, now: float, messages: float = 1.0) -> bool:
        """Whether a message of `size` bytes may pass, which counts as so many `messages`."""
        if self._messages.take(messages, now=now) and self._bytes.take(size, now=now):
            return True
        self._refused += 1
        return False

    def refused_to_tell(self, *, now: float, last: bool = False) -> int:
        """How many were refused since this was told; 0 more often than once a second, but for the `last`."""
        if not self._refused or not (self._remarks.take(now=now) or last):
            return 0
        refused, self._refused = self._refused, 0
        return refused
