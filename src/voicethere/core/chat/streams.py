"""Which streams of one conversation run, and what each message has reported of its tokens.

Knows ids and numbers; dispatches nothing. Both tables are bounded, because a gateway may send any ids.
"""

from __future__ import annotations

from voicethere.core.chat.usage import Usage, growth, highest

MAX_RUNNING = 256
"""Streams that may run at once in one conversation; one more ends the oldest."""
MAX_REPORTS = 1_000
"""Messages whose reported usage is remembered; one more forgets the one that reported longest ago."""


class Streams:
    """The streams of one conversation, and the usage that its messages have reported."""

    __slots__ = ("_reported", "_running")

    def __init__(self) -> None:
        # Ids of running streams, oldest first, with the characters that came without a cumulative text.
        self._running: dict[str, int] = {}
        self._reported: dict[str, Usage] = {}

    @property
    def running(self) -> tuple[str, ...]:
        """The ids of the streams that run, the one that started first at the front."""
        return tuple(self._running)

    def __bool__(self) -> bool:
        """Whether any stream runs."""
        return bool(self._running)

    def start(self, stream_id: str) -> bool:
        """Note that a stream runs; False where it did already."""
        if stream_id in self._running:
            return False
        if len(self._running) >= MAX_RUNNING:
            del self._running[next(iter(self._running))]
        self._running[stream_id] = 0
        return True

    def grow(self, stream_id: str, chars: int) -> int:
        """A running stream's text has so many characters more; how many it has now."""
        total = self._running.get(stream_id, 0) + chars
        if stream_id in self._running:
            self._running[stream_id] = total
        return total

    def end(self, stream_id: str) -> bool:
        """Note that a stream has ended; False where it did not run."""
        return self._running.pop(stream_id, None) is not None

    def end_all(self) -> bool:
        """Note that all have ended, as when their socket is lost; False where none ran."""
        ran = bool(self._running)
        self._running.clear()
        return ran

    def report(self, message_id: str, usage: Usage) -> Usage:
        """What `usage` adds to what the same message has reported before: nothing below zero."""
        before = self._reported.pop(message_id, Usage())
        if len(self._reported) >= MAX_REPORTS:
            del self._reported[next(iter(self._reported))]
        self._reported[message_id] = highest(before, usage)
        return growth(before, usage)
