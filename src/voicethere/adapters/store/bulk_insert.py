"""Many rows into one table, on their ids, as fast as each database takes them.

These statements go past SQLAlchemy, straight to the driver: the errors are the driver's own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, Connection, Table

Values = tuple[Any, ...]
"""One row: a value for each column of the table, in their order. The id is the first, texts are storable."""


def insert_new(connection: Connection, table: Table, rows: Sequence[Values]) -> int:
    """Insert the rows whose ids are new; how many were. Where it raises, go back to a savepoint."""
    if connection.dialect.name == "postgresql":
        return _copy(connection, table, rows)
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    places = ", ".join("?" * len(table.columns))
    statement = f"INSERT INTO {table.name} ({_names(table)}) VALUES ({places}) ON CONFLICT (id) DO NOTHING"  # noqa: S608 - our own names
    return driver.executemany(statement, rows).rowcount


def _copy(connection: Connection, table: Table, rows: Sequence[Values]) -> int:
    """COPY knows no conflicts: ids that are there are looked up first. Where another transaction stores one
    of these rows at this very moment, COPY fails, and the caller has a slower way."""
    import psycopg

    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor() as cursor:
        lookup = f"SELECT id FROM {table.name} WHERE id = ANY(%s)"  # noqa: S608 - our own name
        # Planned anew each time: a plan that is kept from when the table was small reads all of it, until
        # the server looks at the table again.
        cursor.execute(lookup, [[row[0] for row in rows]], prepare=False)
        known = {found[0] for found in cursor}
        fresh = {row[0]: row for row in reversed(rows) if row[0] not in known}
        if not fresh:
            return 0
        with cursor.copy(f"COPY {table.name} ({_names(table)}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types([_type(column.type) for column in table.columns])
            # In the order of their ids: two that store the same wait for each other, never in a circle.
            for row_id in sorted(fresh):
                copy.write_row(fresh[row_id])
        return cursor.rowcount


def _names(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)


def _type(kind: object) -> str:
    if isinstance(kind, Boolean):
        return "bool"
    return "int8" if isinstance(kind, BigInteger) else "text"
