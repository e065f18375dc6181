"""A SQLite file as the store's database: functions of a connection, run in threads, writes grouped.

Knows engines, threads and transactions. Knows no table. SQLite allows one writer at a time, so there is one
writing thread; writes that arrive while it is busy share the next transaction (each behind a savepoint of
its own), so that they share the wait for the disk.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, exc

from voicethere.adapters.store.availability import is_unavailable, unavailable
from voicethere.adapters.store.migrate import UnknownSchema, locked, upgrade
from voicethere.adapters.store.records import StoreUnavailable

Result = TypeVar("Result")
Work = Callable[[Connection], Any]

READERS = 4
MAX_GROUPED_WRITES = 100


class _Outcome(msgspec.Struct, frozen=True):
    """What one piece of work came to: `error` where it is set, `value` otherwise."""

    value: Any = None
    error: Exception | None = None


class SqliteDatabase:
    """Two engines on one database: one connection that writes, a few that only read. One event loop."""

    def __init__(self, *, writing: Engine, reading: Engine) -> None:
        self._writing = writing
        self._reading = reading
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._pending: deque[tuple[Work, asyncio.Future[Any]]] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(cls, url: URL, *, busy_seconds: float) -> SqliteDatabase:
        """Open, create where it is missing, and migrate.

        Raises:
            ValueError: the URL names no file.
            StoreUnavailable: it cannot be opened or migrated.
        """
        path = _sqlite_path(url)
        database = cls(
            writing=_sqlite_engine(url, busy_seconds, read_only=False),
            reading=_sqlite_engine(url, busy_seconds, read_only=True),
        )
        try:
            await asyncio.get_running_loop().run_in_executor(database._writer, database._prepare, path)
        except BaseException:
            await database.aclose()
            raise
        return database

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in a transaction that cannot write; all its statements see the same moment."""
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work`; return once what it did is durable. What it raises undoes only what it did.

        A caller that is cancelled while it waits does not know whether `work` was done.
        """
        self._check_open()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._pending.append((work, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await future

    async def aclose(self) -> None:
        """Finish the writes that were asked for, then let go of every connection and thread."""
        self._closed = True
        if self._flushing is not None:
            await self._flushing
        await asyncio.to_thread(self._release)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _release(self) -> None:
        self._readers.shutdown()
        self._writer.shutdown()
        # The readers first: the last connection that leaves brings the log back into the database, and a
        # reading one may not.
        self._reading.dispose()
        self._writing.dispose()

    def _prepare(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(path):
                _create_private(path)
                with self._writing.begin() as connection:
                    upgrade(connection)
        except (OSError, UnknownSchema, exc.SQLAlchemyError) as error:
            raise unavailable(error) from error

    def _read(self, work: Callable[[Connection], Result]) -> Result:
        try:
            with self._reading.begin() as connection:
                return work(connection)
        except Exception as error:
            if is_unavailable(error):
                raise unavailable(error) from error
            raise

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                taken = [self._pending.popleft() for _ in range(min(len(self._pending), MAX_GROUPED_WRITES))]
                group = [(work, future) for work, future in taken if not future.done()]
                works = [work for work, _ in group]
                try:
                    outcomes = await loop.run_in_executor(self._writer, self._write_group, works)
                except StoreUnavailable as error:
                    # One exception each: they are raised, with tracebacks of their own, in several tasks.
                    outcomes = [_Outcome(error=StoreUnavailable(str(error))) for _ in group]
                except Exception as error:  # whatever it is, all of them must hear of it
                    outcomes = [_Outcome(error=error) for _ in group]
                for (_, future), outcome in zip(group, outcomes, strict=True):
                    if future.done():
                        continue
                    if outcome.error is None:
                        future.set_result(outcome.value)
                    else:
                        future.set_exception(outcome.error)
        finally:
            self._flushing = None

    def _write_group(self, works: Sequence[Work]) -> Sequence[_Outcome]:
        if len(works) == 1:
            return [self._write_alone(works[0])]
        try:
            with self._writing.begin() as connection:
                return [_attempt(connection, work) for work in works]
        except Exception as error:
            if is_unavailable(error):
                raise unavailable(error) from error
            raise

    def _write_alone(self, work: Work) -> _Outcome:
        """Without a savepoint: what is undone is all that there is."""
        try:
            with self._writing.begin() as connection:
                return _Outcome(value=work(connection))
        except Exception as error:
            if is_unavailable(error):
                raise unavailable(error) from error
            return _Outcome(error=error)


def _attempt(connection: Connection, work: Work) -> _Outcome:
    """Run one piece of work behind a savepoint; only an unavailable database ends the whole group."""
    try:
        with connection.begin_nested():
            return _Outcome(value=work(connection))
    except Exception as error:
        if is_unavailable(error):
            raise
        return _Outcome(error=error)


def _create_private(path: Path) -> None:
    """Make the file, readable by its owner only; its -wal and -shm files take after it.

    One that is there is not opened: closing it would drop the locks that SQLite holds on it in this process.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _sqlite_path(url: URL) -> Path:
    if url.database in {None, "", ":memory:"}:
        raise ValueError("the database must be a file: use sqlite:///path/to/voicethere.db")
    return Path(str(url.database)).absolute()


def _sqlite_engine(url: URL, busy_seconds: float, *, read_only: bool) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=READERS if read_only else 1,
        max_overflow=0,
        connect_args={"timeout": busy_seconds, "check_same_thread": False},
    )

    def configure(connection: Any, _: object) -> None:
        # The driver would begin transactions by itself, and late: "begin" below does it.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
            return
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 8000")

    def begin(connection: Connection) -> None:
        # A transaction that will write asks for the lock at once: upgrading later can deadlock.
        # On the driver's own connection: SQLAlchemy takes longer to pass a statement on than SQLite for it.
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute("BEGIN" if read_only else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", begin)
    return engine
