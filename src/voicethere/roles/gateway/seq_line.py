"""Frames of one conversation in the order of their numbers, each once, wherever they come from.

What one gateway stores it tells the others, and each tells what it has stored: so frames come twice, and
those of one gateway may overtake those of another. Pure; knows numbers, not sockets or clocks.
"""

from __future__ import annotations

from collections.abc import Sequence

MOST_AHEAD = 1_000
"""How many batches may wait for those before them."""


class SeqLine:
    """`seq` is the number of the last frame that was given out.

    Example:
        >>> line = SeqLine(0)
        >>> line.put(2, ["b"])
        []
        >>> line.put(1, ["a"])
        [(1, ['a']), (2, ['b'])]
    """

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self._ahead: dict[int, list[str]] = {}

    @property
    def gap(self) -> bool:
        """Whether frames wait for others before them."""
        return bool(self._ahead)

    def put(self, first_seq: int, frames: Sequence[str]) -> list[tuple[int, list[str]]]:
        """What can be given out now, in order."""
        if first_seq + len(frames) - 1 > self.seq:
            known = self._ahead.get(first_seq)
            if known is None or len(known) < len(frames):
                self._ahead[first_seq] = list(frames)
        return self._ready()

    def pass_over(self) -> bool:
        """Wait no longer for what is missing: whether there was a gap. What waited is dropped with it:
        whoever listens must be told anew how things stand."""
        if not self._ahead:
            return False
        self.seq = max(first + len(frames) - 1 for first, frames in self._ahead.items())
        self._ahead.clear()
        return True

    @property
    def crowded(self) -> bool:
        """Whether too much waits."""
        return len(self._ahead) > MOST_AHEAD

    def known(self, seq: int) -> list[tuple[int, list[str]]]:
        """Everything up to `seq` is known from elsewhere: what can be given out then."""
        self.seq = max(self.seq, seq)
        return self._ready()

    def _ready(self) -> list[tuple[int, list[str]]]:
        ready: list[tuple[int, list[str]]] = []
        for first in sorted(self._ahead):
            if first > self.seq + 1:
                break
            frames = self._ahead.pop(first)
            fresh = frames[self.seq + 1 - first :]
            if fresh:
                ready.append((self.seq + 1, fresh))
                self.seq += len(fresh)
        return ready
