"""The database as the store uses it: functions of a connection, whatever engine runs them.

Knows which engines there are and how their URLs look; `sqlite_database` and `postgresql_database` know how
each is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection, exc, make_url

from voicethere.adapters.store.sqlite_database import SqliteDatabase

Result = TypeVar("Result")

_URLS = "use sqlite:///path/to/voicethere.db or postgresql://user:password@host/database"


class Database(Protocol):
    """Runs functions of a connection in threads, each in a transaction; for one event loop."""

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in a transaction that cannot write; all its statements see the same moment.

        Raises:
            StoreUnavailable: the database cannot be read now.
        """

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work`; return once what it did is durable. What it raises undoes only what it did.

        It may be run again from the start, where its transaction crossed another one and was undone. A caller
        that is cancelled while it waits does not know whether `work` was done.

        Raises:
            StoreUnavailable: the database cannot be written now; `work` was not done, unless the connection
                broke during the commit itself.
        """

    async def aclose(self) -> None:
        """Finish the writes that were asked for, then let go of every connection and thread."""


async def open_database(url: str, *, busy_seconds: float, answer_seconds: float) -> Database:
    """Open the database, create a file where it is missing, and migrate.

    `busy_seconds`: how long to wait for another transaction's lock. `answer_seconds`: how long a server may
    take over anything.

    Raises:
        ValueError: not a URL of a database that is supported, or its driver is not installed; the words say
            what to do.
        StoreUnavailable: it cannot be opened or migrated.
    """
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise ValueError(f"not a database URL: {_URLS}") from error
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        return await SqliteDatabase.open(parsed, busy_seconds=busy_seconds)
    if parsed.drivername not in {"postgresql", "postgresql+psycopg"}:
        raise ValueError(f"{parsed.drivername!r} is not a database that is supported: {_URLS}")
    try:
        from voicethere.adapters.store.postgresql_database import PostgresqlDatabase
    except ModuleNotFoundError as error:
        raise ValueError(
            "PostgreSQL needs the driver psycopg: pip install 'voicethere[server,postgres]'"
        ) from error
    return await PostgresqlDatabase.open(parsed, busy_seconds=busy_seconds, answer_seconds=answer_seconds)
