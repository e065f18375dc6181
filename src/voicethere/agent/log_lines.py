"""Log lines within their bounds (contract: agent-ipc.md)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from voicethere.agent.traces import clean
from voicethere.errors.times import iso_from_epoch
from voicethere.wire.ipc import MAX_LOG_FIELDS_CHARS, MAX_LOG_MESSAGE_CHARS, Log

_PREVIEW_CHARS = (MAX_LOG_FIELDS_CHARS - 192) // 2  # as JSON text in JSON it may grow to twice its length
_MAX_INT_DIGITS = 18  # what msgpack can carry


def log_line(level: str, message: str, fields: Mapping[str, Any] | None, session_id: str | None) -> Log:
    """A line of now, cut to what the contract allows."""
    message = clean(message[: MAX_LOG_MESSAGE_CHARS + 1])
    if len(message) > MAX_LOG_MESSAGE_CHARS:
        message = message[: MAX_LOG_MESSAGE_CHARS - 1] + "…"
    return Log(
        level=level,
        message=message,
        fields=None if fields is None else bounded_fields(fields),
        session_id=session_id,
        time=iso_from_epoch(time.time()),
    )


def bounded_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as plain JSON values; a preview of them where they are too long or not JSON at all."""
    try:
        text = clean(json.dumps(dict(fields), default=repr, ensure_ascii=False))
        if len(text) <= MAX_LOG_FIELDS_CHARS:
            plain: dict[str, Any] = json.loads(text, parse_int=_small_int)
            return plain
    except Exception:  # keys that are no strings, cycles, a repr that raises: what can be shown is shown
        text = _repr(fields)
    return {"preview": text[:_PREVIEW_CHARS], "truncated": True}


def _small_int(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else digits


def _repr(fields: Mapping[str, Any]) -> str:
    try:
        return clean(repr(fields))
    except Exception:
        return f"(fields that cannot be shown: {type(fields).__name__})"
