"""One entity of the timeline as a terminal shows it: who or what, and the text. Pure, nothing escaped yet."""

from __future__ import annotations

from typing import Any, NamedTuple

from voicethere.chat import TimelineEntity
from voicethere.cli.chat.error_words import clock_time
from voicethere.cli.chat.shown import shown_json

_SPEAKERS = {"user": "you", "assistant": "agent"}


class EntityWords(NamedTuple):
    """`look` is `user`, `agent`, `error` or `note`; `open` says that more text is to come."""

    label: str
    text: str
    look: str
    open: bool = False


def entity_words(entity: TimelineEntity) -> EntityWords:
    """What to show of it; kinds and properties that nobody knows are shown as they came."""
    props = entity.props
    match entity.kind:
        case "message":
            role = _text(props, "role") or "assistant"
            look = "user" if role == "user" else "agent"
            label = _SPEAKERS.get(role, role)
            return EntityWords(label, _text(props, "content"), look, props.get("streaming") is True)
        case "error":
            code = _text(props, "code")
            return EntityWords("error", _text(props, "message") + (f" [{code}]" if code else ""), "error")
        case "log":
            level = _text(props, "level") or "info"
            return EntityWords(f"log {level}", _with_rest(props, "message", "fields"), "note")
        case "agent_mode":
            return EntityWords("mode", _with_rest(props, "title", "data"), "note")
        case "debugger_pause":
            return EntityWords("paused", _pause(props), "note")
        case _:
            return EntityWords(entity.kind, shown_json(props, 400) if props else "", "note")


def _pause(props: dict[str, Any]) -> str:
    parts = [_text(props, "phase"), _text(props, "summary")]
    deadline = props.get("deadlineMs")
    if isinstance(deadline, str) and deadline.isascii() and deadline.isdigit() and len(deadline) < 20:
        deadline = int(deadline)
    if isinstance(deadline, int) and deadline > 0:
        parts.append(f"until {clock_time(deadline)}")
    return ": ".join(part for part in parts if part)


def _with_rest(props: dict[str, Any], text: str, rest: str) -> str:
    more = props.get(rest)
    return _text(props, text) + (f" {shown_json(more)}" if more else "")


def _text(props: dict[str, Any], key: str) -> str:
    value = props.get(key)
    return value if isinstance(value, str) else "" if value is None else shown_json(value)
