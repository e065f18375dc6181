"""From a child's raw output to bounded lines, and how much of it is kept. No input or output here."""

from __future__ import annotations

MAX_LINE_BYTES = 8192


class LineAssembler:
    """Cuts a byte stream into lines of text, each at most `MAX_LINE_BYTES` long and a note if more was
    dropped. Bytes that are not UTF-8 become U+FFFD.

    Example:
        >>> assembler = LineAssembler()
        >>> assembler.put(b"one\\ntwo\\nthr")
        >>> assembler.next_line(), assembler.next_line(), assembler.next_line()
        ('one', 'two', None)
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._overlong = 0
        self._data = b""
        self._at = 0

    def put(self, data: bytes) -> None:
        """Add data; what was put before must be consumed (`next_line` gave None)."""
        self._data, self._at = data, 0

    def next_line(self) -> str | None:
        """The next whole line, or None when more data is needed for one."""
        end = self._data.find(b"\n", self._at)
        if end < 0:
            self._extend(self._data[self._at :])
            self._data, self._at = b"", 0
            return None
        self._extend(self._data[self._at : end])
        self._at = end + 1
        return self._take()

    def skip_lines(self) -> int:
        """Throw away the whole lines that are left in the data; how many bytes that were."""
        end = self._data.rfind(b"\n", self._at)
        if end < 0:
            return 0
        skipped = end + 1 - self._at
        self._at = end + 1
        return skipped

    def finish(self) -> str | None:
        """What is left without a line end."""
        return self._take() if self._line else None

    def _extend(self, part: bytes) -> None:
        room = MAX_LINE_BYTES - len(self._line)
        self._line += part[:room]
        self._overlong += max(0, len(part) - room)

    def _take(self) -> str:
        cut = bool(self._overlong)
        text = self._line.decode(errors="ignore" if cut else "replace").removesuffix("\r")
        if cut:
            text += f" … {self._overlong} bytes of this line dropped"
        self._line.clear()
        self._overlong = 0
        return text


class TokenBucket:
    """Allows `per_second` units in the long run and `burst` at once. Time is passed in, in seconds."""

    def __init__(self, *, burst: int, per_second: int, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._level = float(burst)
        self._at = now

    def refill(self, now: float) -> float:
        """How many units are there."""
        self._level = min(self._burst, self._level + (now - self._at) * self._per_second)
        self._at = now
        return self._level

    def spend(self, units: int) -> None:
        """Take units, below zero if need be."""
        self._level -= units
