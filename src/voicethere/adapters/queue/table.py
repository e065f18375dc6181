"""The queue's table: one SQLite file, raw `sqlite3`, synchronous.

Knows the file, its locks and its transactions. Knows nothing of threads, waiting, or what an item means.
A connection belongs to the thread that opened it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

SCHEMA_VERSION = 1
MAX_READ_BYTES = 8 * 1024 * 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    position INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice, also after a deletion
    data BLOB NOT NULL,
    put_at_ms INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
)
"""


class Append(msgspec.Struct, frozen=True):
    """Items to add, in order."""

    data: Sequence[bytes]


class Remove(msgspec.Struct, frozen=True):
    """Positions to forget."""

    positions: Sequence[int]


Change = Append | Remove


class NewerSchema(sqlite3.OperationalError):
    """The file was made by a newer version than this one."""


class ItemTable:
    """One connection to the queue's file.

    Every method raises sqlite3.Error where the file cannot be used now, and OSError where it cannot be made.
    """

    def __init__(self, path: Path, *, busy_seconds: float) -> None:
        """Open `path`, made (with its directory) where it is missing, private to its owner."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _exclusive(Path(f"{path}.lock")):
            _create_private(path)
            # No thread check: a connection is used by one thread at a time, closed by another.
            self._connection = sqlite3.connect(
                path, timeout=busy_seconds, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute("PRAGMA page_size = 8192")
        execute("PRAGMA journal_mode = WAL")
        # Accepted means: on the disk. NORMAL would not be faster, and stalls at checkpoints.
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA wal_autocheckpoint = 8000")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise NewerSchema(f"the queue's file has schema {version}, this version knows {SCHEMA_VERSION}")
        if version < SCHEMA_VERSION:
            execute(_SCHEMA)
            execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def apply(self, changes: Sequence[Change]) -> None:
        """All changes in one transaction; durable when this returns, none made when it raises."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for change in changes:
                if isinstance(change, Append):
                    rows = ((data,) for data in change.data)
                    connection.executemany("INSERT INTO items (data) VALUES (?)", rows)
                else:
                    positions = ((position,) for position in change.positions)
                    connection.executemany("DELETE FROM items WHERE position = ?", positions)
            connection.execute("COMMIT")
        except BaseException:
            # A full disk ends the transaction by itself: rolling back is then nothing.
            connection.rollback()
            raise

    @property
    def broken(self) -> bool:
        """Whether a transaction could not be ended: the connection is of no more use."""
        return self._connection.in_transaction

    def read_after(self, position: int, *, limit: int) -> list[tuple[int, bytes]]:
        """Up to `limit` items behind `position`, oldest first; at least one if there is any, then as many as
        fit into `MAX_READ_BYTES`."""
        cursor = self._connection.execute(
            "SELECT position, data FROM items WHERE position > ? ORDER BY position LIMIT ?", (position, limit)
        )
        rows: list[tuple[int, bytes]] = []
        size = 0
        for row in cursor:
            # Someone may have put text with another program: that is poison, not a reason to stop.
            data = row[1] if isinstance(row[1], bytes) else str(row[1]).encode()
            size += len(data)
            if rows and size > MAX_READ_BYTES:
                break
            rows.append((row[0], data))
        cursor.close()
        return rows

    def version(self) -> int:
        """Another number whenever someone else has committed: cheap to ask."""
        number: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return number

    def count(self) -> int:
        """How many items there are."""
        number: int = self._connection.execute("SELECT count(*) FROM items").fetchone()[0]
        return number

    def oldest_seconds(self) -> float | None:
        """How long ago the first item was put; None where there is none."""
        row = self._connection.execute("SELECT put_at_ms FROM items ORDER BY position LIMIT 1").fetchone()
        return None if row is None else max(0.0, time.time() - row[0] / 1000)

    def close(self) -> None:
        """Let go of the file; the last to do so brings its log back into it."""
        self._connection.close()


class ConsumerTurn:
    """The right to receive: held by one consumer of all processes, freed by the kernel when it dies."""

    def __init__(self, path: Path) -> None:
        self._path = Path(f"{path}.consumer")
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Whether it is ours, now or already; OSError where its file cannot be made."""
        if self._descriptor is not None:
            return True
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return False
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let the next one have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process held the file for too long."""
    code: int = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create_private(path: Path) -> None:
    # One that is there is not opened: closing it would drop the locks that SQLite holds in this process.
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
