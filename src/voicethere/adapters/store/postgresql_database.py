"""PostgreSQL as the store's database: functions of a connection, run in threads on a pool of connections.

Knows engines, threads, transactions and what to try again. Knows no table. Many processes write at once,
and so do the threads of one: the functions must hold their own against each other (`READ COMMITTED`).
There are as many connections as threads, so that nobody waits for a connection while a lock is held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, exc, text
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from voicethere.adapters.store.availability import is_lost, is_transient, is_unavailable, unavailable
from voicethere.adapters.store.migrate import UnknownSchema, upgrade
from voicethere.adapters.store.postgresql_connection import ImpatientConnection, NoAnswer, connect
from voicethere.adapters.store.records import StoreUnavailable

Result = TypeVar("Result")

THREADS = 6
"""Of readers and of writers, each: how many connections of each kind one process has at most."""
ATTEMPTS = 6
CONNECT_SECONDS = 5
IDLE_TRANSACTION_SECONDS = 10
"""A process that was paused within a transaction loses it after so long, and with it its locks."""

_MIGRATION_LOCK = 7_601_394_522
_MIGRATION_LOCK_SECONDS = 120


class _Again(Exception):
    """The transaction was undone, through no fault of its own: run it again."""


class PostgresqlDatabase:
    """Two engines on one server, one that writes and one that only reads. One event loop."""

    def __init__(self, *, writing: Engine, reading: Engine) -> None:
        self._writing = writing
        self._reading = reading
        self._writers = ThreadPoolExecutor(THREADS, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(THREADS, thread_name_prefix="store-reader")
        self._closed = False

    @classmethod
    async def open(cls, url: URL, *, busy_seconds: float, answer_seconds: float) -> PostgresqlDatabase:
        """Connect and migrate.

        Raises:
            StoreUnavailable: the server cannot be reached or used, or the schema cannot be migrated.
        """
        engines = [
            _engine(url, busy_seconds=busy_seconds, answer_seconds=answer_seconds, read_only=read_only)
            for read_only in (False, True)
        ]
        database = cls(writing=engines[0], reading=engines[1])
        try:
            await asyncio.get_running_loop().run_in_executor(database._writers, database._prepare)
        except BaseException:
            await database.aclose()
            raise
        return database

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in a transaction that cannot write; all its statements see the same moment."""
        return await self._run(self._readers, self._reading, work)

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work`; return once what it did is committed. What it raises undoes what it did."""
        return await self._run(self._writers, self._writing, work)

    async def aclose(self) -> None:
        """Finish what was asked for, then let go of every connection and thread."""
        self._closed = True
        await asyncio.to_thread(self._release)

    async def _run(
        self, threads: ThreadPoolExecutor, engine: Engine, work: Callable[[Connection], Result]
    ) -> Result:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(threads, _persist, engine, work)

    def _release(self) -> None:
        self._readers.shutdown()
        self._writers.shutdown()
        self._reading.dispose()
        self._writing.dispose()

    def _prepare(self) -> None:
        try:
            with self._writing.begin() as connection:
                _check_encoding(connection)
                _be_patient(connection)
                # One process migrates, the others wait and find nothing left to do.
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
                upgrade(connection)
            self._writing.dispose()  # that connection waits for ever now
        except (UnknownSchema, exc.SQLAlchemyError, psycopg.Error) as error:
            raise unavailable(error) from error


def _persist(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Run `work` until it is not in another's way any more."""
    attempts = Retrying(
        retry=retry_if_exception_type(_Again),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.01, max=0.25),
        reraise=True,
    )
    try:
        value: Result = attempts(_transact, engine, work)
        return value
    except _Again as error:
        cause = error.__cause__
        raise unavailable(cause if isinstance(cause, Exception) else error) from cause
    except Exception as error:
        if is_unavailable(error):
            raise unavailable(error) from error
        raise


def _transact(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    begun = committing = False
    try:
        with engine.connect() as connection, connection.begin():
            begun = True
            value = work(connection)
            committing = True
        return value
    except Exception as error:
        if is_transient(error):
            raise _Again from error
        # A pooled connection that died unnoticed. Once a commit was asked for, nobody knows what became of
        # it; and where there is no answer at all, asking again would only double the wait.
        if begun and not committing and is_lost(error) and not _is_unanswered(error):
            raise _Again from error
        raise


def _is_unanswered(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, NoAnswer) or isinstance(getattr(error, "orig", None), NoAnswer):
            return True
        error = error.__cause__ or error.__context__
    return False


def _check_encoding(connection: Connection) -> None:
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise UnknownSchema(
            f"the database is encoded as {encoding}: make one with CREATE DATABASE … ENCODING 'UTF8'"
        )


def _be_patient(connection: Connection) -> None:
    """Migrations may take their time."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text(f"SET LOCAL lock_timeout = '{_MIGRATION_LOCK_SECONDS}s'"))
    driver = connection.connection.driver_connection
    assert isinstance(driver, ImpatientConnection)
    driver.patience_seconds = None


def _engine(url: URL, *, busy_seconds: float, answer_seconds: float, read_only: bool) -> Engine:
    parameters: dict[str, Any] = {"application_name": "voicethere", "connect_timeout": CONNECT_SECONDS}
    given = url.set(drivername="postgresql+psycopg")
    parameters |= given.get_dialect()().create_connect_args(given)[1]
    parameters["client_encoding"] = "utf8"
    settings = {
        # The server gives up first: then the connection lives on.
        "statement_timeout": f"{max(1, int(answer_seconds * 900))}ms",
        "lock_timeout": f"{max(1, int(min(busy_seconds, answer_seconds * 0.8) * 1000))}ms",
        "idle_in_transaction_session_timeout": f"{IDLE_TRANSACTION_SECONDS}s",
        "default_transaction_isolation": "repeatable read" if read_only else "read committed",
        "default_transaction_read_only": "on" if read_only else "off",
    }

    def open_connection() -> ImpatientConnection:
        return connect(parameters, settings, answer_seconds)

    return create_engine(
        "postgresql+psycopg://",
        creator=open_connection,
        poolclass=QueuePool,
        pool_size=THREADS,
        max_overflow=0,
    )
