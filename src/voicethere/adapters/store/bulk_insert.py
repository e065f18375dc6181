"""Many rows into one table, on their ids, as fast as each database takes them.

These statements go past SQLAlchemy, straight to the driver: the errors are the driver's own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, Connection, Table

from voicethere.adapters.store.availability import is_unavailable

Values = tuple[Any, ...]
"""One row: a value for each column of the table, in their order. The id is the first, texts are storable."""

_SAVEPOINT = "before_bulk"


def insert_new(connection: Connection, table: Table, rows: Sequence[Values]) -> int:
    """Insert the rows whose ids are new; how many were. Where it raises, none of them is there, and the
    transaction goes on, unless the database cannot be used now."""
    if connection.dialect.name == "postgresql":
        return _copy(connection, table, rows)
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    places = ", ".join("?" * len(table.columns))
    statement = f"INSERT INTO {table.name} ({_names(table)}) VALUES ({places}) ON CONFLICT (id) DO NOTHING"  # noqa: S608 - our own names
    with connection.begin_nested():
        return driver.executemany(statement, rows).rowcount


def _copy(connection: Connection, table: Table, rows: Sequence[Values]) -> int:
    """COPY knows no conflicts: ids that are there are looked up first. Where another transaction stores one
    of these rows at this very moment, COPY fails, and the caller has a slower way."""
    import psycopg

    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor() as cursor:
        lookup = f"SELECT id FROM {table.name} WHERE id = ANY(%s)"  # noqa: S608 - our own name
        with driver.pipeline():  # one way to the server and back, not two
            driver.execute(f"SAVEPOINT {_SAVEPOINT}")
            # Planned anew each time: a plan that is kept from when the table was small reads all of it, until
            # the server looks at the table again.
            cursor.execute(lookup, [[row[0] for row in rows]], prepare=False)
        known = {found[0] for found in cursor}
        fresh = {row[0]: row for row in reversed(rows) if row[0] not in known}
        if not fresh:
            return 0
        try:
            with cursor.copy(f"COPY {table.name} ({_names(table)}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types([_type(column.type) for column in table.columns])
                # In the order of their ids: two that store the same wait for each other, never in a circle.
                for row_id in sorted(fresh):
                    copy.write_row(fresh[row_id])
        except Exception as error:
            if not is_unavailable(error):
                driver.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            raise
        # The commit releases the savepoint: that needs no statement of its own.
        return cursor.rowcount


def _names(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)


def _type(kind: object) -> str:
    if isinstance(kind, Boolean):
        return "bool"
    return "int8" if isinstance(kind, BigInteger) else "text"
