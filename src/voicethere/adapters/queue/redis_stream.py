"""The distributed adapter of the `session-errors` queue: a Redis Stream with one consumer group.

Guarantees, those of the port:

- *Accepted* means that Redis answered. With `appendonly yes` and `appendfsync always` it answers after
  syncing: an accepted item survives the machine. `voicethere doctor` says where that is not so.
- Puts that wait together share one transaction: all of its items are there, or none is. Where the connection
  is lost before the answer, nobody knows: the put counts as not accepted, and is to be repeated. An item's
  id makes that harmless.
- Several consumers share the items: each is given to one of them. What a consumer that died was given comes
  to another after `idle_reclaim_seconds`; of one that was closed, at the others' next look for such; to one
  of the same name, at once.
- One consumer receives in the order of the stream. Over several, an end of a session is given out only
  after everything in front of it is acknowledged (see `stream_consumer`).

This module knows tasks, limits and waiting; `stream_consumer` knows the order, `stream` the commands,
`redis_link` the connection.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Sequence

import msgspec
import structlog

from voicethere.adapters.queue.redis_link import answered, connect, disconnect
from voicethere.adapters.queue.stream import EntryId, Stream
from voicethere.adapters.queue.stream_consumer import SLICE_SECONDS, StreamConsumer
from voicethere.core.ports import Delivery, QueueUnavailable
from voicethere.wire.queue import QUEUE_NAME, QueueItem, encode

MAX_WAITING_PUTS = 1024
MAX_GROUPED_ITEMS = 1024
MAX_GROUPED_BYTES = 4 * 1024 * 1024

_log = structlog.get_logger(__name__)


class _Put(msgspec.Struct, frozen=True):
    """Items that are to be accepted together, and who waits for that."""

    payloads: Sequence[bytes]
    accepted: asyncio.Future[None]


class RedisErrorQueue:
    """Implements `ErrorQueuePort` on the stream `{prefix}:session-errors`; used from one event loop.

    Connects when it is first needed, and again after every failure.

    Example:
        >>> queue = RedisErrorQueue("redis://:secret@redis.internal:6379/0")
        >>> await queue.put([ErrorItem(record=record)])
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "voicethere",
        consumer: str | None = None,
        idle_reclaim_seconds: float = 10.0,
        answer_seconds: float = 4.0,
    ) -> None:
        """`consumer` names this consumer in Redis; whoever comes next with the same name goes on with what
        it held, so no two may have it at once. Without it, a name of its own. After `answer_seconds` without
        an answer Redis counts as unavailable.

        Raises:
            ValueError: not the URL of a Redis.
        """
        name = consumer or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        key = f"{prefix}:{QUEUE_NAME}"
        self._answer_seconds = answer_seconds
        self._closed = False
        # -- writing
        self._writer = connect(url, answer_seconds=answer_seconds)
        self._written = Stream(self._writer, key, name)
        self._room = asyncio.Semaphore(MAX_WAITING_PUTS)
        self._pending: deque[_Put] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._has_group = False
        # -- receiving: a connection of its own, for it waits in Redis
        self._reader = connect(url, answer_seconds=answer_seconds + SLICE_SECONDS)
        self._consumer = StreamConsumer(
            Stream(self._reader, key, name), name, idle_reclaim_seconds=idle_reclaim_seconds
        )
        self._name = name
        self._receiving = asyncio.Lock()
        self._ready: deque[Delivery] = deque()
        self._fetching: asyncio.Task[list[Delivery]] | None = None
        self._received = False

    async def put(self, items: Sequence[QueueItem]) -> None:
        """Return once Redis has taken all items; a cancelled put may still have been accepted.

        Raises:
            QueueUnavailable: none was accepted, or nobody knows: put them again.
        """
        payloads = [encode(item) for item in items]
        self._check_open()
        if not payloads:
            return
        async with self._room:
            self._check_open()
            accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._pending.append(_Put(payloads, accepted))
            if self._flushing is None:
                self._flushing = asyncio.create_task(self._flush(), name="queue put")
            await accepted

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """Up to `limit` items that this consumer has not received yet, oldest first; empty where none came
        within `wait_seconds`. Cancelling loses nothing: the next call gives it.

        Raises:
            QueueUnavailable: Redis cannot be read now.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        deadline = time.monotonic() + wait_seconds
        async with self._receiving:
            while not self._ready:
                self._check_open()
                self._ready += await self._fetch(limit, max(0.0, deadline - time.monotonic()))
                if not self._ready and time.monotonic() >= deadline:
                    return []
            self._check_open()
            # From here to the return nothing is awaited: what counts as given out is given out.
            return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    async def acknowledge(self, positions: Sequence[str]) -> None:
        """Forget these items, durably.

        Raises:
            ValueError: a position that no delivery had.
            QueueUnavailable: they are still there, or nobody knows: acknowledge them again.
        """
        self._check_open()
        for position in positions:
            EntryId.parse(position)
        if positions:
            async with answered(self._answer_seconds):
                await self._written.remove(positions)
            self._consumer.forget(positions)

    async def depth(self) -> int:
        """How many items are not acknowledged.

        Raises:
            QueueUnavailable: Redis cannot be asked now.
        """
        self._check_open()
        async with answered(self._answer_seconds):
            return await self._written.length()

    async def oldest_seconds(self) -> float | None:
        """How long the oldest item has been here, by Redis's clock.

        Raises:
            QueueUnavailable: Redis cannot be asked now.
        """
        self._check_open()
        async with answered(self._answer_seconds):
            return await self._written.oldest_seconds()

    async def aclose(self) -> None:
        """Put what waits, hand back what was given and not acknowledged, disconnect."""
        if self._closed:
            return
        self._closed = True
        if self._flushing is not None:
            await self._flushing
        if self._fetching is not None:
            await asyncio.gather(self._fetching, return_exceptions=True)
        try:
            if self._received:
                await self._leave()
        finally:
            await disconnect(self._writer)
            await disconnect(self._reader)

    def _check_open(self) -> None:
        if self._closed:
            raise QueueUnavailable("the queue is closed")

    # ------------------------------------------------------------------ writing

    async def _flush(self) -> None:
        """Put what waits, one transaction after the other, until nothing does."""
        try:
            while self._pending:
                group = self._next_group()
                try:
                    async with answered(self._answer_seconds):
                        await self._append([data for put in group for data in put.payloads])
                except Exception as error:  # whatever it is, every one who waits must hear of it
                    # What waits behind has waited long enough too.
                    _settle([*group, *self._pending], error)
                    self._pending.clear()
                else:
                    _settle(group, None)
        finally:
            self._flushing = None

    async def _append(self, payloads: Sequence[bytes]) -> None:
        if not self._has_group:
            # Before there is anything to read: a worker that comes when memory is full could not make it.
            await self._written.create_group()
            self._has_group = True
        await self._written.append(payloads)

    def _next_group(self) -> list[_Put]:
        """The oldest puts, as many as one transaction takes, and at least one."""
        group: list[_Put] = []
        items = size = 0
        while self._pending:
            payloads = self._pending[0].payloads
            items += len(payloads)
            size += sum(map(len, payloads))
            if group and (items > MAX_GROUPED_ITEMS or size > MAX_GROUPED_BYTES):
                break
            group.append(self._pending.popleft())
        return group

    # ------------------------------------------------------------------ receiving

    async def _fetch(self, limit: int, wait_seconds: float) -> list[Delivery]:
        """What one command brings. It is not ended where the caller is cancelled: what Redis has given to a
        connection that is not read any more would be nobody's for a while."""
        if self._fetching is None:
            self._received = True
            self._fetching = asyncio.create_task(self._fetch_now(limit, wait_seconds), name="queue receive")
        task = self._fetching
        await asyncio.wait([task])
        self._fetching = None
        return task.result()

    async def _fetch_now(self, limit: int, wait_seconds: float) -> list[Delivery]:
        async with answered(self._answer_seconds + SLICE_SECONDS):
            return await self._consumer.fetch(limit, wait_seconds)

    async def _leave(self) -> None:
        try:
            async with answered(self._answer_seconds):
                await self._consumer.leave()
        except QueueUnavailable as problem:
            # Others take it over all the same, only later.
            _log.warning("queue_left_without_handing_back", consumer=self._name, problem=str(problem))


def _settle(puts: Sequence[_Put], error: Exception | None) -> None:
    for put in puts:
        if put.accepted.done():  # its caller was cancelled
            continue
        if error is None:
            put.accepted.set_result(None)
        else:
            problem = error if isinstance(error, QueueUnavailable) else QueueUnavailable(str(error))
            put.accepted.set_exception(problem)
