"""What one consumer of the stream is given, and in which order.

- First what it holds already (given before a restart, or while a connection broke), then what others hold
  for too long (they are dead, or hang), then what is new.
- The end of a session is not given out while another consumer holds anything in front of it: whoever sees a
  session ended finds its errors. Errors wait for nobody.

Knows order and when. Knows nothing of connections, of time limits, or of who calls. Methods raise RedisError
and OSError as they come; after one, what may have been given meanwhile is looked for again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import msgspec
import structlog
from redis.exceptions import ResponseError

from voicethere.adapters.queue.stream import FIRST, Entry, EntryId, Stream
from voicethere.core.ports import Delivery
from voicethere.wire.queue import SessionEndedItem, decode

SLICE_SECONDS = 0.5
"""How long one command waits in Redis: also how long closing may take."""
_SLICE_WITH_HELD_ENDS_SECONDS = 0.02
_MAX_HELD_ENDS = 10_000
_LOOKS_PER_RECLAIM = 4
_GONE_SECONDS = 3600.0
"""A consumer that holds nothing and was not heard of for so long is forgotten."""
_LOOK_FOR_GONE_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class StreamConsumer:
    """Not for several tasks at once, but for `forget`."""

    def __init__(self, stream: Stream, name: str, *, idle_reclaim_seconds: float) -> None:
        self._stream = stream
        self._name = name
        self._idle_milliseconds = max(1, int(idle_reclaim_seconds * 1000))
        self._look_seconds = idle_reclaim_seconds / _LOOKS_PER_RECLAIM
        self._known: set[str] = set()
        """Positions that this consumer holds and knows of: given out, about to be, or held back."""
        self._held: deque[tuple[EntryId, Delivery]] = deque()
        self._own_after: str | None = FIRST
        """Up to where what Redis says we hold has been looked at; None where all of it was."""
        self._claim_cursor = FIRST
        self._next_claim = 0.0
        self._next_look_for_gone = 0.0

    def forget(self, positions: Sequence[str]) -> None:
        """These are acknowledged."""
        self._known.difference_update(positions)

    async def leave(self) -> None:
        """Hand back all that this consumer was given and has not forgotten, and go."""
        await self._stream.hand_back(sorted(self._known), idle_milliseconds=self._idle_milliseconds)
        await self._stream.remove_consumer(self._name)

    async def fetch(self, limit: int, wait_seconds: float) -> list[Delivery]:
        """Up to some `limit` items; waits for a slice of `wait_seconds` at most, and may come back empty
        before they are over."""
        try:
            try:
                return await self._fetch(limit, wait_seconds)
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                # A new Redis, or one that was emptied: all that is there now is new to the group. Not tried
                # before it is needed, for a Redis without memory refuses it, and must be drained too.
                await self._stream.create_group()
                self._look_again()
                return await self._fetch(limit, wait_seconds)
        except BaseException:
            self._look_again()
            raise

    def _look_again(self) -> None:
        self._own_after = FIRST

    async def _fetch(self, limit: int, wait_seconds: float) -> list[Delivery]:
        released = await self._release()
        if released:
            return released
        if (before := await self._held_before()) or (before := await self._left_by_others()):
            return await self._ordered(before)
        if len(self._held) >= _MAX_HELD_ENDS:
            return []
        longest = _SLICE_WITH_HELD_ENDS_SECONDS if self._held else SLICE_SECONDS
        wait = min(wait_seconds, longest, max(0.0, self._next_claim - time.monotonic()))
        entries = await self._stream.read_new(limit, block_milliseconds=int(wait * 1000))
        return await self._ordered(entries)

    # ------------------------------------------------------------------ the three sources

    async def _held_before(self) -> list[Entry]:
        """The next of what Redis says we hold, and we do not know of."""
        while self._own_after is not None:
            known = frozenset(self._known)  # some may be acknowledged, and forgotten, while this is read
            page = await self._stream.read_own(self._own_after)
            self._own_after = page[-1].position if page else None
            if unknown := [entry for entry in page if entry.position not in known]:
                return unknown
        return []

    async def _left_by_others(self) -> list[Entry]:
        """The next of what was given to somebody too long ago."""
        if time.monotonic() < self._next_claim:
            return []
        while True:
            known = frozenset(self._known)
            self._claim_cursor, page = await self._stream.take_over(
                idle_milliseconds=self._idle_milliseconds, cursor=self._claim_cursor
            )
            done = self._claim_cursor == FIRST
            if done:
                self._next_claim = time.monotonic() + self._look_seconds
                await self._forget_the_gone()
                if not known and await self._stream.give_again():
                    _log.error("queue_items_given_to_nobody", remedy="Redis lost a part of its log: mend it")
            if unknown := [entry for entry in page if entry.position not in known]:
                _log.warning("queue_items_taken_over", consumer=self._name, items=len(unknown))
                return unknown
            if done:
                return []

    async def _forget_the_gone(self) -> None:
        now = time.monotonic()
        if now < self._next_look_for_gone:
            return
        self._next_look_for_gone = now + _LOOK_FOR_GONE_SECONDS
        for consumer in await self._stream.consumers():
            if consumer.pending == 0 and consumer.idle_seconds > _GONE_SECONDS:
                await self._stream.remove_consumer(consumer.name)

    # ------------------------------------------------------------------ order

    async def _ordered(self, entries: Sequence[Entry]) -> list[Delivery]:
        """What of these may be given out now."""
        deleted = [entry.position for entry in entries if entry.data is None]
        if deleted:
            _log.error("queue_items_deleted_by_others", items=len(deleted), first=deleted[0])
            await self._stream.remove(deleted)
        deliveries = [_delivery(entry, entry.data) for entry in entries if entry.data is not None]
        some_end = any(isinstance(delivery.item, SessionEndedItem) for delivery in deliveries)
        elsewhere = await self._stream.oldest_elsewhere() if some_end else None
        now: list[Delivery] = []
        for delivery in deliveries:
            self._known.add(delivery.position)
            if elsewhere is not None and isinstance(delivery.item, SessionEndedItem):
                place = EntryId.parse(delivery.position)
                if place > elsewhere:
                    self._held.append((place, delivery))
                    continue
            now.append(delivery)
        return now

    async def _release(self) -> list[Delivery]:
        """The ends before which nobody else holds anything any more."""
        if not self._held:
            return []
        elsewhere = await self._stream.oldest_elsewhere()
        free = [delivery for place, delivery in self._held if elsewhere is None or place < elsewhere]
        if free:
            self._held = deque(pair for pair in self._held if elsewhere is not None and pair[0] > elsewhere)
        return free


def _delivery(entry: Entry, data: bytes) -> Delivery:
    if entry.foreign:
        return Delivery(entry.position, data, None, "not an item of this queue: no field `item` alone")
    try:
        return Delivery(entry.position, data, decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Delivery(entry.position, data, None, f"not an item of this queue: {error}")
