"""How values become columns and back: times, JSON, and inserts that mind a conflict."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from voicethere.core.ports import Clock
from voicethere.errors.times import iso, parse_iso

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_context_decoder = msgspec.json.Decoder(dict[str, Any])


def now_ms(clock: Clock) -> int:
    """The clock's time in whole milliseconds since the epoch."""
    return int(clock.now() * 1000)


def to_ms(wire_time: str) -> int:
    """A wire time in milliseconds since the epoch.

    Raises:
        ValueError: it is none; the words say what one looks like.
    """
    try:
        return (parse_iso(wire_time) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError) as error:
        raise ValueError(f"not a time like 2026-06-19T12:00:00.000Z: {wire_time[:64]!r}") from error


def to_wire(milliseconds: int) -> str:
    """Milliseconds since the epoch as a wire time."""
    return iso(_EPOCH + milliseconds * _MILLISECOND)


def to_wire_or_none(milliseconds: int | None) -> str | None:
    """As `to_wire`; None stays None."""
    return None if milliseconds is None else to_wire(milliseconds)


def to_json(value: object) -> str:
    """A value as JSON text."""
    return msgspec.json.encode(value).decode()


def object_or_none(text: str | None) -> dict[str, Any] | None:
    """The JSON object in a column; None stays None."""
    return None if text is None else _context_decoder.decode(text)


def insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An insert that knows `on_conflict_do_nothing` and `on_conflict_do_update`: both databases spell them
    alike, but SQLAlchemy keeps them apart."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
