"""The embedded adapter of the `session-errors` queue: a durable table that several processes share.

Guarantees, those of the port:

- *Accepted* means committed with `synchronous=FULL`: `put` returns after that. Puts that wait together share
  one transaction, and a put is in it as a whole or not at all.
- Items are received in the order in which they were accepted, and stay until they are acknowledged.
- One consumer receives at a time, of all processes (a file lock that the kernel frees when its holder
  dies); the others wait their turn in `receive`, so two workers never get the same item at once.
- A consumer gets an item once; what it did not acknowledge is received again, from the oldest on, by the
  next consumer: after this one was closed, or has died. A process that is forked from a consumer without
  exec would hold its turn.

This module knows threads and waiting; `table` knows the file.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from voicethere.adapters.queue.table import Append, Change, ConsumerTurn, ItemTable, Remove, is_busy
from voicethere.core.ports import Delivery, QueueUnavailable
from voicethere.wire.queue import QueueItem, decode, encode

MAX_WAITING_PUTS = 512
MAX_GROUPED_CHANGES = 1024
POLL_SECONDS = 0.01
"""How often a waiting consumer looks for what other processes have put."""
Answer = TypeVar("Answer")


class EmbeddedErrorQueue:
    """Implements `ErrorQueuePort` on one SQLite file; used from one event loop.

    Opens the file when it is first needed, so that constructing never fails.

    Example:
        >>> queue = EmbeddedErrorQueue(Path("data/queue.db"))
        >>> await queue.put([ErrorItem(record=record)])
    """

    def __init__(self, path: Path, *, busy_seconds: float = 5.0) -> None:
        """`busy_seconds`: how long a put waits while another process holds the file."""
        self._path = path
        self._busy_seconds = busy_seconds
        self._closed = False
        # -- writing
        self._room = asyncio.Semaphore(MAX_WAITING_PUTS)
        self._pending: deque[tuple[Change, asyncio.Future[None]]] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="queue-writer")
        self._write_table: ItemTable | None = None
        # -- receiving
        self._receiving = asyncio.Lock()
        self._delivered = 0
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="queue-reader")
        self._read_table: ItemTable | None = None
        self._turn = ConsumerTurn(path)
        self._changed = threading.Event()

    async def put(self, items: Sequence[QueueItem]) -> None:
        """Return once all items are durable; a cancelled put may still have been accepted.

        Raises:
            QueueUnavailable: none was accepted.
        """
        data = [encode(item) for item in items]
        self._check_open()
        if not data:
            return
        async with self._room:
            self._check_open()
            await self._change(Append(data))

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """Up to `limit` items that this consumer has not received yet, oldest first; empty where none came
        within `wait_seconds`, or another consumer has its turn. Cancelling loses nothing.

        Raises:
            QueueUnavailable: the file cannot be read now.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        deadline = time.monotonic() + wait_seconds
        async with self._receiving:
            self._check_open()
            given_up = threading.Event()
            loop = asyncio.get_running_loop()
            try:
                rows = await loop.run_in_executor(self._reader, self._wait, limit, deadline, given_up)
            except BaseException:
                given_up.set()
                self._changed.set()
                raise
            # From here to the return nothing is awaited: what counts as delivered is delivered.
            if rows:
                self._delivered = rows[-1][0]
            return [_delivery(position, data) for position, data in rows]

    async def acknowledge(self, positions: Sequence[str]) -> None:
        """Forget these items, durably.

        Raises:
            ValueError: a position that no delivery had.
            QueueUnavailable: they are still there.
        """
        numbers = [_number(position) for position in positions]
        self._check_open()
        if numbers:
            await self._change(Remove(numbers))

    async def depth(self) -> int:
        """How many items are not acknowledged. Reads the whole file: not for a tight loop.

        Raises:
            QueueUnavailable: the file cannot be read now.
        """
        self._check_open()
        return await asyncio.to_thread(self._ask, ItemTable.count)

    async def oldest_seconds(self) -> float | None:
        """How long the oldest item has been here, by this machine's clock.

        Raises:
            QueueUnavailable: the file cannot be read now.
        """
        self._check_open()
        return await asyncio.to_thread(self._ask, ItemTable.oldest_seconds)

    async def aclose(self) -> None:
        """Write what was put, then release the file and the turn to receive."""
        self._closed = True
        self._changed.set()
        if self._flushing is not None:
            await self._flushing
        async with self._receiving:
            await asyncio.to_thread(self._release)

    def _check_open(self) -> None:
        if self._closed:
            raise QueueUnavailable("the queue is closed")

    def _release(self) -> None:
        self._reader.shutdown()
        self._writer.shutdown()
        for table in (self._read_table, self._write_table):
            if table is not None:
                table.close()
        self._read_table = self._write_table = None
        self._turn.release()

    # ------------------------------------------------------------------ writing

    async def _change(self, change: Change) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((change, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await future

    async def _flush(self) -> None:
        """Commit what waits, one transaction after the other, until nothing does."""
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                size = min(len(self._pending), MAX_GROUPED_CHANGES)
                group = [self._pending.popleft() for _ in range(size)]
                outcomes = await loop.run_in_executor(self._writer, self._commit, [c for c, _ in group])
                for (_, future), problem in zip(group, outcomes, strict=True):
                    if future.done():  # its caller was cancelled
                        continue
                    if problem is None:
                        future.set_result(None)
                    else:
                        future.set_exception(problem)
        finally:
            self._flushing = None

    def _commit(self, changes: Sequence[Change]) -> Sequence[QueueUnavailable | None]:
        """Runs in the writer's thread; one outcome for each change, None where it is durable."""
        try:
            if self._write_table is None:
                self._write_table = ItemTable(self._path, busy_seconds=self._busy_seconds)
            self._write_table.apply(changes)
        except sqlite3.Error as error:
            if self._write_table is not None and self._write_table.broken:
                self._write_table.close()
                self._write_table = None
            if len(changes) > 1 and not is_busy(error):
                # Where the disk is full, a removal or a smaller put may still find room.
                return [self._commit([change])[0] for change in changes]
            return [_unavailable(error) for _ in changes]
        except Exception as error:  # whatever it is, every one who waits must hear of it
            return [_unavailable(error) for _ in changes]
        self._changed.set()
        return [None] * len(changes)

    # ------------------------------------------------------------------ receiving

    def _wait(self, limit: int, deadline: float, given_up: threading.Event) -> list[tuple[int, bytes]]:
        """Runs in the reader's thread: what there is, or what comes before `deadline` (monotonic)."""
        try:
            while True:
                self._changed.clear()
                version = None
                if self._turn.take():
                    if self._read_table is None:
                        self._read_table = ItemTable(self._path, busy_seconds=self._busy_seconds)
                    # Asked before reading, so that nothing can come in between unseen.
                    version = self._read_table.version()
                    rows = self._read_table.read_after(self._delivered, limit=limit)
                    if rows:
                        return rows
                if not self._wait_for_change(version, deadline, given_up):
                    return []
        except (sqlite3.Error, OSError) as error:
            if self._read_table is not None:
                self._read_table.close()
                self._read_table = None
            raise _unavailable(error) from error

    def _wait_for_change(self, version: int | None, deadline: float, given_up: threading.Event) -> bool:
        """False where the time is up or nobody wants to know any more."""
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or given_up.is_set() or self._closed:
                return False
            told = self._changed.wait(min(POLL_SECONDS, remaining))
            if given_up.is_set() or self._closed:
                return False
            if told or self._read_table is None or self._read_table.version() != version:
                return True

    def _ask(self, question: Callable[[ItemTable], Answer]) -> Answer:
        try:
            table = ItemTable(self._path, busy_seconds=self._busy_seconds)
            try:
                return question(table)
            finally:
                table.close()
        except (sqlite3.Error, OSError) as error:
            raise _unavailable(error) from error


def _delivery(position: int, data: bytes) -> Delivery:
    try:
        return Delivery(str(position), data, decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Delivery(str(position), data, None, f"not an item of this queue: {error}")


def _number(position: str) -> int:
    if not (position.isascii() and position.isdigit() and len(position) < 19):
        raise ValueError(f"not a position of this queue: {position[:32]!r}")
    return int(position)


def _unavailable(error: Exception) -> QueueUnavailable:
    problem = QueueUnavailable(f"the error queue cannot be used now: {error}")
    problem.__cause__ = error
    return problem
