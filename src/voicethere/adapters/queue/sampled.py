"""A queue in which no project has more than its share: what is over its budget is counted, not queued.

- `put` queues what `core.storm` lets through, and returns; what is suppressed counts as dealt with. Where the
  queue is unavailable nothing was counted either, so that the whole put can be tried again.
- The counts are queued every few seconds while a storm lasts, and before `aclose` returns. Each summary has
  its id before the first attempt: tried again, it is still counted once.
- A process that is killed takes with it the counts of those seconds. It never takes an error.

This module knows when to queue what; `core.storm` decides, the queue keeps.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog
import tenacity

from voicethere.core.ports import Clock, Delivery, ErrorQueuePort, QueueUnavailable
from voicethere.core.storm import Decision, StormGate, StormRules, Suppression
from voicethere.errors.ids import error_id
from voicethere.wire.queue import ErrorItem, QueueItem, SuppressedItem

_LAST_ATTEMPTS = 3
"""How often a summary is tried at the end."""
_AT_ONCE = 200
_NOTE_EVERY_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class SampledErrorQueue:
    """Implements `ErrorQueuePort` for producers, in front of `queue`, which it owns. One event loop.

    Example:
        >>> queue = SampledErrorQueue(SpooledErrorQueue(RedisErrorQueue(url), spool), clock)
        >>> await queue.put([ErrorItem(record=record)])
    """

    def __init__(
        self,
        queue: ErrorQueuePort,
        clock: Clock,
        rules: StormRules | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`sleep` waits until counts are due, and between two attempts, for as many seconds as it is told."""
        self._queue = queue
        self._clock = clock
        self._gate = StormGate(rules or StormRules())
        self._sleep = sleep
        self._unsent: deque[SuppressedItem] = deque()
        self._minted = 0
        self._summarizing: asyncio.Task[None] | None = None
        self._next_note = 0.0
        self._closed = False
        self._putting = 0
        self._all_put = asyncio.Event()
        self._all_put.set()

    async def put(self, items: Sequence[QueueItem]) -> None:
        """Return once all items are durable, but for those that are suppressed.

        Raises:
            QueueUnavailable: none was accepted, and none counted.
        """
        if self._closed:
            raise QueueUnavailable("the queue is closed")
        self._putting += 1
        self._all_put.clear()
        try:
            await self._put(items)
        finally:
            self._putting -= 1
            if not self._putting:
                self._all_put.set()

    async def _put(self, items: Sequence[QueueItem]) -> None:
        now = self._clock.monotonic()
        passed: list[QueueItem] = []
        suppressed: list[ErrorItem] = []
        for item in items:
            decision = self._gate.decide(item, now)
            if decision is Decision.SUPPRESS and isinstance(item, ErrorItem):
                suppressed.append(item)
                continue
            passed.append(item)
            if decision is Decision.STORE_AND_NOTE:
                self._note(item, now)
        if passed:
            try:
                await self._queue.put(passed)
            except QueueUnavailable:
                for item in passed:
                    self._gate.give_back(item)
                raise
        for item in suppressed:
            self._gate.count(item, now)
        if suppressed and self._summarizing is None and not self._closed:
            self._summarizing = asyncio.create_task(self._summarize(), name="storm summaries")

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """As the queue does."""
        return await self._queue.receive(limit=limit, wait_seconds=wait_seconds)

    async def acknowledge(self, positions: Sequence[str]) -> None:
        """As the queue does."""
        await self._queue.acknowledge(positions)

    async def depth(self) -> int:
        """As the queue does; counts that are not queued yet are not in it."""
        return await self._queue.depth()

    async def oldest_seconds(self) -> float | None:
        """As the queue does."""
        return await self._queue.oldest_seconds()

    async def aclose(self) -> None:
        """Queue the counts, then close the queue. What cannot be queued now is logged."""
        if self._closed:
            return
        self._closed = True
        if self._summarizing is not None:
            self._summarizing.cancel()
            await asyncio.wait([self._summarizing])
        try:
            await self._all_put.wait()  # what they suppress is to be told too
            await self._send_at_last()
        finally:
            await self._queue.aclose()

    def _note(self, item: QueueItem, now: float) -> None:
        if now < self._next_note:
            return
        self._next_note = now + _NOTE_EVERY_SECONDS
        project_id = item.record.project_id if isinstance(item, ErrorItem) else item.project_id
        _log.warning("storm_not_suppressed", project_id=project_id, remedy="see docs/nothing-lost.md, storms")

    # ------------------------------------------------------------------ summaries

    async def _summarize(self) -> None:
        """Until there is nothing to tell: to see that and to be done is one turn of the event loop."""
        try:
            while (seconds := self._gate.due_in(self._clock.monotonic())) is not None:
                await self._sleep(seconds)
                self._mint()
                await self._send(tenacity.stop_never)
        finally:
            self._summarizing = None

    async def _send_at_last(self) -> None:
        """One after the other, so that as many as there are can be told."""
        self._mint()
        try:
            await self._send(tenacity.stop_after_attempt(_LAST_ATTEMPTS))
        except QueueUnavailable as problem:
            for item in self._unsent:
                _log.error(
                    "suppressions_not_queued",
                    project_id=item.project_id,
                    code=item.code.value,
                    count=item.count,
                    problem=str(problem),
                )

    def _mint(self) -> None:
        self._unsent.extend(self._summary(found) for found in self._gate.take_counts())

    def _summary(self, found: Suppression) -> SuppressedItem:
        self._minted += 1
        _log.warning(
            "errors_suppressed", project_id=found.project_id, code=found.code.value, count=found.count
        )
        return SuppressedItem(
            id=error_id(self._clock.now(), self._minted),
            project_id=found.project_id,
            code=found.code,
            count=found.count,
            first_at=found.first_at,
            last_at=found.last_at,
        )

    async def _send(self, stop: tenacity.stop.stop_base) -> None:
        while self._unsent:
            some = [self._unsent[index] for index in range(min(_AT_ONCE, len(self._unsent)))]
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(QueueUnavailable),
                wait=tenacity.wait_exponential(multiplier=0.05, max=_LONGEST_PAUSE_SECONDS),
                stop=stop,
                sleep=self._sleep,
                reraise=True,
            ):
                with attempt:
                    await self._queue.put(some)
            # Not before it is accepted: cancelled or unavailable, they go again, with the same ids.
            for _ in some:
                self._unsent.popleft()
