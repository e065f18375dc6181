"""How values become columns and back: times, JSON, and inserts that mind a conflict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Dialect,
    FromClause,
    Insert,
    Table,
    TypeDecorator,
    any_,
    bindparam,
    func,
    select,
)
from sqlalchemy import Text as AnyText
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from voicethere.core.ports import Clock
from voicethere.errors.times import iso, parse_iso

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_context_decoder = msgspec.json.Decoder(dict[str, Any])


class Text(TypeDecorator[str]):
    """Text that is the same on every database: ordered by its UTF-8 bytes, and without NUL characters.

    PostgreSQL stores no NUL, and what an agent raises may hold one: U+FFFD takes its place, on all of them.
    """

    impl = AnyText
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Bytewise is what SQLite does by itself."""
        return AnyText(collation="C") if dialect.name == "postgresql" else AnyText()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Every text on its way into the database."""
        return None if value is None else storable(value)


def storable(value: str) -> str:
    """Text as it is stored.

    Raises:
        TypeError: it is no text (a database might make one of it).
    """
    if not isinstance(value, str):
        raise TypeError(f"expected text, not {type(value).__name__}")
    return value.replace("\0", "\ufffd") if "\0" in value else value


def among(connection: Connection, column: Column[str], values: list[str]) -> ColumnElement[bool]:
    """That a text column has one of these values; the same statement however many there are, where that
    spares the server from preparing each."""
    if connection.dialect.name == "postgresql":
        array = bindparam(None, values, type_=postgresql.ARRAY(Text()))
        return column == any_(array)
    return column.in_(values)


class NamedRows:
    """Rows of text to join with (`rows`), so that an index finds what they name; bind `parameters` to run it.

    The same statement however many rows there are: build it once.
    """

    def __init__(self, dialect: str, names: Sequence[str]) -> None:
        self._arrays = dialect == "postgresql"
        self.rows: FromClause
        if self._arrays:
            columns = [bindparam(f"named_{name}", type_=postgresql.ARRAY(Text())) for name in names]
            self.rows = func.unnest(*columns).table_valued(*names, name="named").render_derived()
        else:
            # SQLite has no arrays; it would scan the table for `(a, b) IN (VALUES …)`.
            each = func.json_each(bindparam("named_rows", type_=AnyText)).table_valued("value", name="each")
            parts = (
                func.json_extract(each.c.value, f"$[{index}]", type_=AnyText).label(name)
                for index, name in enumerate(names)
            )
            self.rows = select(*parts).subquery("named")
        self._names = tuple(names)

    def parameters(self, rows: Sequence[tuple[str, ...]]) -> dict[str, Any]:
        """What to run the statement with, to join with these."""
        if self._arrays:
            return {f"named_{name}": [row[index] for row in rows] for index, name in enumerate(self._names)}
        return {"named_rows": to_json([[storable(value) for value in row] for row in rows])}


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


def count_inserted(
    connection: Connection,
    statement: Insert,
    rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
) -> int:
    """Run an insert; how many rows it really made, after conflicts."""
    # SQLAlchemy keeps this number of an insert only where it is asked to.
    return connection.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount


def insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An insert that knows `on_conflict_do_nothing` and `on_conflict_do_update`: both databases spell them
    alike, but SQLAlchemy keeps them apart."""
    return insert_into(connection.dialect.name, table)


def insert_into(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """The same by the name of the database's dialect."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
