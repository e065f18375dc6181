"""The events of a conversation that came before its snapshot was applied, and the order of their replay.

Knows `seq` alone; decodes nothing and applies nothing.
"""

from __future__ import annotations

from voicethere.wire.sem import SemEvent

MAX_EVENTS = 10_000
MAX_CHARS = 32 * 1024 * 1024


class ReplayBuffer:
    """Holds events until `drain` gives them in the order in which they are to be applied.

    Once it `is_full`, stop reading the socket until the snapshot has come or failed: memory stays bounded and
    nothing is lost. (`add` still takes what comes: the bound is the reader's to keep.)
    """

    __slots__ = ("_chars", "_events", "_max_chars", "_max_events")

    def __init__(self, *, max_events: int = MAX_EVENTS, max_chars: int = MAX_CHARS) -> None:
        self._max_events = max_events
        self._max_chars = max_chars
        self._events: list[SemEvent] = []
        self._chars = 0

    def __len__(self) -> int:
        """How many events are held."""
        return len(self._events)

    @property
    def is_full(self) -> bool:
        """Whether enough is held."""
        return len(self._events) >= self._max_events or self._chars >= self._max_chars

    def add(self, event: SemEvent, chars: int = 0) -> None:
        """Hold an event, which came in a frame of so many characters (or bytes)."""
        self._events.append(event)
        self._chars += chars

    def drain(self) -> list[SemEvent]:
        """All events, and the buffer is empty: those without `seq` first, as they came; then by `seq`.

        Of several with one `seq` the first to come counts, and the others are left out.
        """
        events, self._events, self._chars = self._events, [], 0
        unnumbered: list[SemEvent] = []
        numbered: dict[int | float, SemEvent] = {}
        for event in events:
            if isinstance(event.seq, (int, float)):
                numbered.setdefault(event.seq, event)
            else:
                unnumbered.append(event)
        return unnumbered + [numbered[seq] for seq in sorted(numbered)]
