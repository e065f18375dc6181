"""The event log behind a debug panel: the newest 1,000 things that happened in each conversation.

Knows entries, their bounds and who listens; who records what is the runtime's business, and pausing is the
viewer's. Payloads are kept as JSON text, so that nothing here holds on to, or shows, what changes later.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from voicethere.chat.event_lines import family_of, one_line, summary_of
from voicethere.core.chat import checks
from voicethere.core.clock import SystemClock
from voicethere.core.ports import Clock
from voicethere.errors.bounds import fit_object
from voicethere.errors.times import iso_from_epoch
from voicethere.wire.sem import SemEvent

MAX_ENTRIES = 1_000
"""Entries of one conversation; the oldest goes first."""
MAX_PAYLOAD_BYTES = 16 * 1024
"""An entry's payload as JSON. What is larger is shortened, with a mark where something is missing."""
_MAX_PAYLOAD_DEPTH = 32
_MAX_TYPE_CHARS = 100
_MAX_FAMILY_CHARS = 40

_log = logging.getLogger("voicethere.chat")


class LifecyclePhase(enum.StrEnum):
    """What a connection of a conversation is about (sem-chat.md, "Lifecycle phases")."""

    CONNECT_BEGIN = "connect.begin"
    CONNECT_REUSE = "connect.reuse"
    DISCONNECT = "disconnect"
    WS_OPEN = "ws.open"
    WS_CLOSE = "ws.close"
    WS_ERROR = "ws.error"
    HYDRATE_START = "hydrate.start"
    HYDRATE_SNAPSHOT_APPLIED = "hydrate.snapshot.applied"
    HYDRATE_FETCH_FAILED = "hydrate.fetch.failed"
    HYDRATE_FETCH_ERROR = "hydrate.fetch.error"
    FRAME_BUFFERED = "frame.buffered"
    REPLAY_BEGIN = "replay.begin"
    REPLAY_COMPLETE = "replay.complete"
    HYDRATE_COMPLETE = "hydrate.complete"


class EventLogEntry(msgspec.Struct, frozen=True):
    """One thing that happened. `number` counts the log's entries from 1, `at_ms` is in epoch milliseconds."""

    number: int
    at_ms: int
    conv_id: str
    family: str
    type: str
    summary: str
    payload_json: bytes

    @property
    def payload(self) -> Any:
        """What it was about, as JSON data of the caller's own."""
        return msgspec.json.decode(self.payload_json)


EventListener = Callable[[EventLogEntry], object]


class EventLog:
    """What happened in any number of conversations, each with its own bounds.

    Example:
        >>> log = EventLog()
        >>> unsubscribe = log.subscribe(lambda entry: print(entry.family, entry.summary))
        >>> log.record("conv-1", "lifecycle", "ws.open", "socket open")
        >>> log.export_text("conv-1")
    """

    def __init__(self, *, max_entries: int = MAX_ENTRIES, clock: Clock | None = None) -> None:
        """`max_entries` bounds each conversation.

        Raises:
            ValueError: it is less than 1.
        """
        if max_entries < 1:
            raise ValueError(f"max_entries must be at least 1, not {max_entries}")
        self._max_entries = max_entries
        self._clock = clock or SystemClock()
        self._entries: dict[str, deque[EventLogEntry]] = {}
        self._listeners: dict[object, tuple[EventListener, str | None]] = {}
        self._number = 0

    def record(
        self, conv_id: str, family: str, type: str, summary: str, payload: Any = None
    ) -> EventLogEntry:
        """Add an entry and tell the listeners of it.

        Its texts become single lines of bounded length; `payload` becomes JSON, and what does not fit, or is
        no JSON data, is replaced by a mark.

        Raises:
            TypeError, ValueError: `conv_id` is not a string, is empty or too long.
        """
        checks.identifier(conv_id, "conv_id")
        self._number += 1
        entry = EventLogEntry(
            self._number,
            int(self._clock.now() * 1000),
            conv_id,
            one_line(str(family), _MAX_FAMILY_CHARS),
            one_line(str(type), _MAX_TYPE_CHARS),
            one_line(summary),
            _encoded(payload),
        )
        entries = self._entries.get(conv_id)
        if entries is None:
            entries = self._entries[conv_id] = deque(maxlen=self._max_entries)
        entries.append(entry)
        self._tell(entry)
        return entry

    def record_event(self, conv_id: str, event: SemEvent) -> EventLogEntry:
        """Add an entry for a frame's event, of the family and with the summary that its type has."""
        return self.record(conv_id, family_of(event.type), event.type, summary_of(event), event)

    def record_phase(
        self, conv_id: str, phase: LifecyclePhase, summary: str = "", **details: Any
    ) -> EventLogEntry:
        """Add an entry of the family `lifecycle`."""
        return self.record(conv_id, "lifecycle", phase.value, summary or phase.value, details)

    def entries(self, conv_id: str, families: Iterable[str] | None = None) -> tuple[EventLogEntry, ...]:
        """A conversation's entries, oldest first; with `families` those of these alone."""
        found = self._entries.get(conv_id, ())
        if families is None:
            return tuple(found)
        wanted = {families} if isinstance(families, str) else set(families)
        return tuple(entry for entry in found if entry.family in wanted)

    def conversation_ids(self) -> tuple[str, ...]:
        """The conversations that have entries, in the order in which they came."""
        return tuple(self._entries)

    def clear(self, conv_id: str) -> None:
        """Forget a conversation's entries."""
        self._entries.pop(conv_id, None)

    def subscribe(self, listener: EventListener, conv_id: str | None = None) -> Callable[[], None]:
        """Call `listener(entry)` for each new entry (of `conv_id` alone, if given); call the result to stop.

        One that raises is logged, and the others still hear.

        Raises:
            TypeError: the listener cannot be called, or is a coroutine function.
        """
        checks.plain_function(listener, "the listener")
        token = object()
        self._listeners[token] = (listener, conv_id)

        def unsubscribe() -> None:
            self._listeners.pop(token, None)

        return unsubscribe

    def export_text(self, conv_id: str, families: Iterable[str] | None = None) -> str:
        """The entries as lines of time, family, type and summary, each ended by a line break."""
        return "".join(
            f"{iso_from_epoch(entry.at_ms / 1000)}  {entry.family:<9}  {entry.type}  {entry.summary}\n"
            for entry in self.entries(conv_id, families)
        )

    def export_yaml(self, conv_id: str, families: Iterable[str] | None = None) -> str:
        """The entries with their payloads as one YAML document: `conversation` and a list of `entries`."""
        document = {
            "conversation": conv_id,
            "entries": [
                {
                    "number": entry.number,
                    "at": iso_from_epoch(entry.at_ms / 1000),
                    "family": entry.family,
                    "type": entry.type,
                    "summary": entry.summary,
                    "payload": entry.payload,
                }
                for entry in self.entries(conv_id, families)
            ],
        }
        # Imported when it is wanted: YAML takes longer to load than all of the state.
        import msgspec.yaml

        return msgspec.yaml.encode(document).decode()

    def _tell(self, entry: EventLogEntry) -> None:
        for listener, conv_id in tuple(self._listeners.values()):
            if conv_id is not None and conv_id != entry.conv_id:
                continue
            try:
                listener(entry)
            except Exception:
                _log.exception("a listener of the event log failed on %s", entry.type)


def _encoded(payload: Any) -> bytes:
    try:
        encoded = msgspec.json.encode(payload)
        if len(encoded) <= MAX_PAYLOAD_BYTES:
            return encoded
        payload = msgspec.to_builtins(payload)
    except Exception:  # nobody's JSON: an object, a cycle, a lone surrogate
        encoded = b""
    wrapped = payload if isinstance(payload, dict) else {"value": payload}
    return msgspec.json.encode(fit_object(wrapped, max_bytes=MAX_PAYLOAD_BYTES, max_depth=_MAX_PAYLOAD_DEPTH))
