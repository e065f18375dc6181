"""SEM events in one line each, and the family that each belongs to: what a debug panel lists and filters by.

Knows the event types of the contract. Everything in a line may come from a hostile server: it is bounded, and
holds nothing that a terminal would obey.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from voicethere.errors.bounds import cut_end
from voicethere.wire.sem import SemEvent

MAX_LINE_CHARS = 160
_MAX_QUOTE_CHARS = 60
_TEXT_PROPS = ("content", "message", "title")

FAMILIES = MappingProxyType(
    {
        "llm": "streams of text: llm.*",
        "timeline": "entities: timeline.upsert",
        "log": "log lines of the agent",
        "agent": "agent.mode and the agent's own frames",
        "debugger": "debugger.*",
        "error": "session errors, and every other error of the conversation",
        "lifecycle": "the phases of a connection",
        "prompt": "what the user sent",
        "other": "frames of any other type",
    }
)
"""The families that the runtime records, each with what belongs to it. A caller may record others."""


def family_of(event_type: str) -> str:
    """The family of an event's type: its first part, where that is one of the contract's."""
    if event_type == "session.error":
        return "error"
    first = event_type.partition(".")[0]
    return first if first in ("llm", "timeline", "log", "agent", "debugger") else "other"


def summary_of(event: SemEvent) -> str:
    """What an event says, in one line."""
    try:
        words = _words(event)
    except (AttributeError, TypeError):  # an event that was made by hand, with data of another type
        words = event.id
    return one_line(words)


def one_line(text: str, max_chars: int = MAX_LINE_CHARS) -> str:
    """`text` as one printable line of at most so many characters; the rest of it becomes spaces or `�`."""
    # Cut first: a server may send megabytes.
    shortened = cut_end(text, max_chars * 2)
    if not shortened.isprintable():
        shortened = "".join(
            char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in shortened
        )
    return cut_end(" ".join(shortened.split()), max_chars)


def _words(event: SemEvent) -> str:
    data: Any = event.data
    match event.type:
        case "llm.start" | "llm.thinking.start":
            return f"{event.id} {_given(data.role)}"
        case "llm.delta" | "llm.thinking.delta":
            total = f" ({len(data.cumulative)} chars)" if isinstance(data.cumulative, str) else ""
            return f"{event.id} +{_quoted(data.delta)}{total}"
        case "llm.final" | "llm.thinking.summary" | "llm.thinking.final":
            return f"{event.id} {_quoted(data.text)}"
        case "timeline.upsert":
            entity = data.entity
            shown = next((entity.props[name] for name in _TEXT_PROPS if name in entity.props), "")
            running = " streaming" if entity.props.get("streaming") is True else ""
            return f"{entity.kind} {entity.id} v{data.version}{running} {_quoted(shown)}"
        case "log":
            return f"{data.level}: {data.message}"
        case "agent.mode":
            return f"{event.id} {data.title}"
        case "debugger.pause":
            return f"{data.pause_id} {data.phase} {data.summary}"
        case "session.error":
            return f"{data.code}: {data.message}"
    return event.id


def _given(value: object) -> str:
    return value if isinstance(value, str) else ""


def _quoted(value: object) -> str:
    return f'"{one_line(value, _MAX_QUOTE_CHARS)}"' if isinstance(value, str) and value else ""
