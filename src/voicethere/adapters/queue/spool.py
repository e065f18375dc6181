"""A queue that goes on accepting while the queue itself cannot be written: what waits is spooled locally.

- `put` tries the queue. Where that is unavailable the items go to a file of this process, and *accepted*
  means written and synced there. While anything is spooled, everything goes behind it: order is kept.
- A replayer puts what is spooled into the queue, in order, as soon as that works again. Killed in between,
  it puts some items twice: their ids are stable, and the store inserts each once.
- What a process leaves behind when it dies is adopted by the next one that opens the same directory.
- Where the spool is full, or cannot be written either, `put` raises QueueUnavailable: nothing was accepted.

This module knows order, limits and when; `spool_file` knows the bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
import tenacity

from voicethere.adapters.queue.spool_file import SpoolFile, SpoolRecord, left_behind
from voicethere.core.ports import Delivery, ErrorQueuePort, QueueUnavailable
from voicethere.wire.queue import QueueItem, decode, encode

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
DEFAULT_RESERVE_BYTES = 1024 * 1024
"""Allocated ahead: the queue's disk and the spool's are usually the same, and full at the same time."""
_REPLAY_ITEMS = 200
_REPLAY_BYTES = 4 * 1024 * 1024
_REMIND_EVERY = 60
"""After how many attempts the log says again that things wait."""

Result = TypeVar("Result")
_Found = tuple[SpoolRecord, QueueItem | None]
_log = structlog.get_logger(__name__)


class _Waiting(msgspec.Struct, frozen=True):
    """Items that are to be spooled, and who waits for that."""

    payloads: Sequence[bytes]
    accepted: asyncio.Future[None]


class SpooledErrorQueue:
    """Implements `ErrorQueuePort` for producers, in front of `queue`, which it owns. One event loop.

    Receiving and acknowledging are the queue's own: what is spooled is delivered once it is in the queue.

    Example:
        >>> queue = SpooledErrorQueue(EmbeddedErrorQueue(path, busy_seconds=1.0), Path("runner/spool"))
        >>> await queue.open()
        >>> await queue.put([ErrorItem(record=record)])
    """

    def __init__(
        self,
        queue: ErrorQueuePort,
        directory: Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        reserve_bytes: int = DEFAULT_RESERVE_BYTES,
        longest_pause_seconds: float = 1.0,
    ) -> None:
        """`max_bytes` bounds all that is spooled; `reserve_bytes` are allocated at once, so that a disk that
        is full later still takes them. The replayer tries at least every `longest_pause_seconds`."""
        self._queue = queue
        self._directory = directory
        self._max_bytes = max_bytes
        self._reserve_bytes = min(reserve_bytes, max_bytes)
        self._longest_pause_seconds = longest_pause_seconds
        self._closed = False
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._opening = asyncio.Lock()
        self._adopted: list[SpoolFile] = []
        self._own: SpoolFile | None = None
        self._first_look: asyncio.Task[None] | None = None
        self._looked = False
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._replaying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take over what dead processes left, begin to replay it, and reserve the spool's space.

        Never raises: a spool that cannot be made is logged, and tried again when it is needed.
        """
        if self._first_look is None:
            self._first_look = asyncio.create_task(self._look(), name="spool open")
        await asyncio.shield(self._first_look)

    @property
    def spooled(self) -> int:
        """How many items wait in the spool."""
        return sum(file.count for file in self._files())

    async def put(self, items: Sequence[QueueItem]) -> None:
        """Return once all items are durable, in the queue or in the spool.

        Raises:
            QueueUnavailable: none was accepted, by either of them.
        """
        payloads = [encode(item) for item in items]
        self._check_open()
        if not payloads:
            return
        if self._first_look is None or not self._first_look.done():
            await self.open()
        problem: QueueUnavailable | None = None
        if not self._is_behind():
            try:
                await self._queue.put(items)
                return
            except QueueUnavailable as error:
                self._check_open()
                problem = error
                _log.error("queue_unavailable_spooling", items=len(items), problem=str(error))
        try:
            await self._spool(payloads)
        except OSError as error:
            raise QueueUnavailable(self._no_room(error, problem)) from error

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """As the queue does."""
        self._check_open()
        return await self._queue.receive(limit=limit, wait_seconds=wait_seconds)

    async def acknowledge(self, positions: Sequence[str]) -> None:
        """As the queue does."""
        self._check_open()
        await self._queue.acknowledge(positions)

    async def depth(self) -> int:
        """How many items are not acknowledged: those in the queue, and those that wait in front of it."""
        self._check_open()
        return await self._queue.depth() + self.spooled

    async def oldest_seconds(self) -> float | None:
        """As the queue does: what is spooled is not in it yet."""
        self._check_open()
        return await self._queue.oldest_seconds()

    async def aclose(self) -> None:
        """Close the queue; what is spooled stays for the next process on this directory."""
        if self._closed:
            return
        self._closed = True
        if self._first_look is not None:
            await self._first_look
        if self._replaying is not None:
            self._replaying.cancel()
            await asyncio.wait([self._replaying])
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await self._queue.aclose()
        await self._on_disk(self._let_go)
        self._disk.shutdown()

    def _check_open(self) -> None:
        if self._closed:
            raise QueueUnavailable("the queue is closed")

    def _files(self) -> list[SpoolFile]:
        return self._adopted if self._own is None else [*self._adopted, self._own]

    def _is_behind(self) -> bool:
        """Whether something waits, or is about to: what comes now must go behind it."""
        return bool(self._waiting) or self._writing is not None or self.spooled > 0

    def _no_room(self, error: OSError, problem: QueueUnavailable | None) -> str:
        why = "things wait in the spool before it" if problem is None else str(problem)
        return (
            f"neither the error queue ({why}) nor the spool in {self._directory} takes items now: {error}. "
            f"{self.spooled} items wait in the spool: bring the queue back, or make room on the disk"
        )

    async def _on_disk(self, work: Callable[..., Result], *arguments: object) -> Result:
        """In the one thread that touches the files."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments)

    # ------------------------------------------------------------------ the files

    async def _look(self) -> None:
        try:
            await self._ensure_open()
        except OSError as error:
            _log.error("spool_not_ready", directory=str(self._directory), problem=str(error))

    async def _ensure_open(self) -> None:
        async with self._opening:
            if not self._looked:
                self._adopted = await self._on_disk(self._adopt_all)
                self._looked = True
                if self.spooled:
                    _log.warning("spool_adopted", files=len(self._adopted), items=self.spooled)
                    self._start_replaying()
            if self._own is None:
                self._own = await self._on_disk(self._create)

    def _adopt_all(self) -> list[SpoolFile]:
        adopted = []
        for path in left_behind(self._directory):
            file = SpoolFile.adopt(path)
            if file is not None and file.count:
                adopted.append(file)
            elif file is not None:
                self._give_back(file)
        return adopted

    def _create(self) -> SpoolFile:
        try:
            return SpoolFile.create(self._directory, reserve_bytes=self._reserve_bytes)
        except OSError as error:
            # Without room for the reserve there may still be some for a record or two.
            _log.warning("spool_space_not_reserved", bytes=self._reserve_bytes, problem=str(error))
            return SpoolFile.create(self._directory, reserve_bytes=0)

    def _let_go(self) -> None:
        for file in self._files():
            if file is self._own and file.count == 0:
                file.remove()
            else:
                file.close()

    # ------------------------------------------------------------------ spooling

    async def _spool(self, payloads: Sequence[bytes]) -> None:
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(payloads, accepted))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="spool")
        await accepted

    async def _write(self) -> None:
        """Append what waits, all of it with one sync, until nothing does."""
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                try:
                    await self._ensure_open()
                    outcomes = await self._on_disk(self._append_all, group)
                except Exception as error:  # whatever it is, every one who waits must hear of it
                    outcomes = [error] * len(group)
                for waiting, problem in zip(group, outcomes, strict=True):
                    if waiting.accepted.done():  # its caller was cancelled
                        continue
                    if problem is None:
                        waiting.accepted.set_result(None)
                    else:
                        waiting.accepted.set_exception(problem)
        finally:
            self._writing = None
            self._start_replaying()

    def _append_all(self, group: Sequence[_Waiting]) -> Sequence[Exception | None]:
        """In the disk's thread; one outcome for each, None where it is durable."""
        assert self._own is not None
        payloads = [payload for waiting in group for payload in waiting.payloads]
        used = sum(file.end for file in self._files())
        try:
            if used + SpoolFile.size_of(payloads) > self._max_bytes:
                raise OSError(f"the spool is full: {used} of {self._max_bytes} bytes are used")
            self._own.append(payloads)
        except OSError as error:
            if len(group) > 1:  # there may still be room for one of them
                return [self._append_all([waiting])[0] for waiting in group]
            return [error]
        return [None] * len(group)

    # ------------------------------------------------------------------ replaying

    def _start_replaying(self) -> None:
        if self._closed or not self.spooled or (self._replaying is not None and not self._replaying.done()):
            return
        self._replaying = asyncio.create_task(self._replay(), name="spool replay")

    async def _replay(self) -> None:
        """Until nothing is spooled: to see that and to be done is one turn of the event loop."""
        replayed = 0
        while self.spooled:
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(Exception),
                wait=tenacity.wait_exponential(multiplier=0.05, max=self._longest_pause_seconds),
                before_sleep=self._still_away,
            ):
                with attempt:
                    # After a failure one alone: where there is little room, it may still fit.
                    most = _REPLAY_ITEMS if attempt.retry_state.attempt_number == 1 else 1
                    replayed += await self._replay_some(most)
        _log.warning("spool_replayed", items=replayed)

    async def _replay_some(self, most: int) -> int:
        file = next(file for file in self._files() if file.count)
        records = await self._on_disk(_read, file, most)
        items = [item for _, item in records if item is not None]
        if items:
            await self._queue.put(items)
        await self._on_disk(self._forget, file, records)
        return len(items)

    def _forget(self, file: SpoolFile, records: Sequence[_Found]) -> None:
        """In the disk's thread: these are in the queue; what was damaged among them is set aside."""
        for record, item in records:
            if record.start > file.position:
                _set_aside(file, file.position, record.start, "not a record")
            if item is None:
                _set_aside(file, record.start, record.end, "not an item as this version knows them")
            file.forget(record)
        if file.count == 0:
            self._give_back(file)

    def _give_back(self, file: SpoolFile) -> None:
        """In the disk's thread: the file's records are in the queue, its space is free again."""
        if file is self._own:
            file.clear()
            return
        if file.written(file.position, file.end) > file.position:
            if file.torn(file.position):
                # Its `put` never returned: nobody was told that it is safe.
                _log.warning("spool_torn_record_dropped", file=file.path.name)
            else:
                _set_aside(file, file.position, file.end, "not a record")
        file.remove()
        self._adopted = [other for other in self._adopted if other is not file]

    def _still_away(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number % _REMIND_EVERY == 1:
            problem = state.outcome.exception() if state.outcome else None
            _log.error(
                "spool_waits", items=self.spooled, directory=str(self._directory), problem=str(problem)
            )


def _read(file: SpoolFile, most: int) -> list[_Found]:
    """In the disk's thread: the oldest records, with their items where they can be read."""
    found: list[_Found] = []
    size = 0
    for record in file.records():
        try:
            found.append((record, decode(record.data)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found.append((record, None))
        size += len(record.data)
        if len(found) == most or size >= _REPLAY_BYTES:
            break
    return found


def _set_aside(file: SpoolFile, start: int, end: int, why: str) -> None:
    if file.written(start, end) == start:
        _log.warning("spool_gap", file=file.path.name, bytes=end - start)  # zeros: nothing to keep
        return
    where = file.set_aside(start, end)
    _log.error("spool_damaged", set_aside=str(where), bytes=end - start, problem=why)
