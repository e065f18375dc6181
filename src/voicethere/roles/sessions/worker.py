"""The worker: takes errors and ends of sessions off the queue and stores them.

The order is what makes it exact: receive, commit, and only then acknowledge. Where it dies in between, the
items come again and change nothing. Batches are committed one after the other, in the order in which they
were received; what may overlap does:

- A batch is acknowledged while the next one is received and committed. Nobody hears of that one, and none
  is committed after it, before: of what a worker that dies leaves to come again, two batches at most are
  stored already.
- While it is behind (a batch was as large as it may be), it receives the next one during a commit. Otherwise
  it receives after the commit: whatever came meanwhile is then one batch, and one command to the queue.

So batches are small while little waits, and large when much does. Knows no database and no queue by name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from voicethere.adapters.store import CommittedBatch, Store, StoreUnavailable
from voicethere.core.ports import Delivery, ErrorQueuePort, QueueUnavailable
from voicethere.core.tracing import NO_TRACER, Tracer

Result = TypeVar("Result")

WAIT_SECONDS = 0.25
"""How long one call of `receive` waits: also how long `stop` may take to be noticed."""
LAST_ATTEMPTS = 3
"""How often something is still tried after `stop`, where the store or the queue is unavailable."""


class WorkedBatch(msgspec.Struct, frozen=True):
    """What was stored in one transaction; `seconds` is how long that took, attempts that failed included."""

    deliveries: Sequence[Delivery]
    committed: CommittedBatch
    seconds: float


class Worker:
    """Moves items from a queue into a store until it is stopped.

    Example:
        >>> worker = Worker(queue, store)
        >>> task = asyncio.create_task(worker.run())
        >>> await worker.stop()
    """

    def __init__(
        self,
        queue: ErrorQueuePort,
        store: Store,
        *,
        batch: int = 500,
        on_committed: Callable[[CommittedBatch], None] | None = None,
        on_batch: Callable[[WorkedBatch], None] | None = None,
        empties_queue: bool = True,
        tracer: Tracer = NO_TRACER,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`batch`: items of one transaction at most. `on_committed` and `on_batch` hear of each transaction
        once it is durable. `empties_queue`: whether `stop` takes what is still there; False leaves it to
        other workers. `sleep` waits between two attempts, for as many seconds as it is told."""
        self._queue = queue
        self._store = store
        self._batch = batch
        self._on_committed = on_committed
        self._on_batch = on_batch
        self._empties_queue = empties_queue
        self._tracer = tracer
        self._sleep = sleep
        self._stopping = False
        self._attempts_since_stop = 0
        self._ahead: asyncio.Task[Sequence[Delivery]] | None = None
        self._acknowledging: asyncio.Task[None] | None = None
        self._finished = asyncio.Event()
        self._finished.set()
        self._log: Any = structlog.get_logger("voicethere.worker")

    async def run(self) -> None:
        """Work until `stop`, then take what is still there (where that is this worker's).

        An unavailable store or queue is waited for; it ends the work only after `stop`, and what was not
        stored stays in the queue.
        """
        self._finished.clear()
        try:
            await self._work()
            if self._empties_queue:
                await self._drain()
            await self._acknowledged()
        except (StoreUnavailable, QueueUnavailable) as error:
            self._log.error("worker_stopped_early", reason=str(error), remedy="the items stay in the queue")
        finally:
            try:
                await self._end_tasks()
            finally:
                self._finished.set()

    async def stop(self) -> None:
        """Make `run` end, and return when it has. Stop the producers first: it may take what is there now."""
        self._stopping = True
        await self._finished.wait()

    async def _work(self) -> None:
        while not self._stopping:
            deliveries = await self._next()
            if len(deliveries) >= self._batch:
                self._ahead = asyncio.create_task(self._receive(self._batch), name="worker receive")
            await self._store_all(deliveries)
        if self._ahead is not None:
            await self._store_all(await self._next())

    async def _next(self) -> Sequence[Delivery]:
        """The next batch in order: the one that is being received already, if any is."""
        if self._ahead is None:
            return await self._receive(self._batch)
        deliveries = await self._ahead
        self._ahead = None
        return deliveries

    async def _drain(self) -> None:
        await self._acknowledged()  # what is not would be counted
        left = await self._persist(self._queue.depth)
        while left > 0:
            deliveries = await self._receive(min(left, self._batch), wait_seconds=0.0)
            if not deliveries:
                return
            await self._store_all(deliveries)
            left -= len(deliveries)

    async def _receive(self, limit: int, wait_seconds: float = WAIT_SECONDS) -> Sequence[Delivery]:
        return await self._persist(lambda: self._queue.receive(limit=limit, wait_seconds=wait_seconds))

    async def _store_all(self, deliveries: Sequence[Delivery]) -> None:
        """Commit, then begin to acknowledge."""
        if not deliveries:
            await self._acknowledged()  # there is time, and whatever went wrong there is heard of
            return
        committed, seconds = await self._commit(deliveries)
        await self._acknowledged()
        self._tell(WorkedBatch(deliveries, committed, seconds))
        positions = [delivery.position for delivery in deliveries]
        self._acknowledging = asyncio.create_task(
            self._persist(lambda: self._queue.acknowledge(positions)), name="worker acknowledge"
        )

    async def _acknowledged(self) -> None:
        """Wait until all is acknowledged that was reported as committed."""
        if self._acknowledging is not None:
            await self._acknowledging
            self._acknowledging = None

    async def _end_tasks(self) -> None:
        """After a failure or a cancellation. Nothing is lost by either: what was received comes again."""
        tasks = [task for task in (self._ahead, self._acknowledging) if task is not None]
        self._ahead = self._acknowledging = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _commit(self, deliveries: Sequence[Delivery]) -> tuple[CommittedBatch, float]:
        """What became of them, and how many seconds that took."""
        items = [delivery.item for delivery in deliveries if delivery.item is not None]
        poison = [
            (delivery.data, delivery.problem or "unreadable")
            for delivery in deliveries
            if delivery.item is None
        ]
        started = time.monotonic()
        with self._tracer.span("commit batch", items=len(items), unreadable=len(poison)) as span:
            committed = await self._persist(lambda: self._store.commit_batch(items, poison))
            span.set(inserted=committed.inserted, duplicates=committed.duplicates, dead=committed.dead)
        return committed, time.monotonic() - started

    def _tell(self, batch: WorkedBatch) -> None:
        committed = batch.committed
        self._log.debug(
            "batch_committed",
            inserted=committed.inserted,
            duplicates=committed.duplicates,
            ended=committed.ended,
            dead=committed.dead,
        )
        if committed.dead:
            self._log.error(
                "items_dead_lettered",
                count=committed.dead,
                unreadable=sum(delivery.item is None for delivery in batch.deliveries),
                remedy="look at the table dead_letters: each row names its problem",
            )
        if self._on_committed is not None:
            self._on_committed(committed)
        if self._on_batch is not None:
            self._on_batch(batch)

    async def _persist(self, action: Callable[[], Awaitable[Result]]) -> Result:
        """Do it, again and again while the store or the queue is unavailable."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type((StoreUnavailable, QueueUnavailable)),
            wait=wait_exponential(multiplier=0.1, max=5.0),
            stop=self._is_hopeless,
            before_sleep=self._say_why,
            sleep=self._sleep,
            reraise=True,
        )

        async def attempt() -> Result:
            return await action()

        # An async function, not `action` itself: tenacity would hand back a lambda's coroutine unawaited.
        return await attempts(attempt)

    def _is_hopeless(self, _: RetryCallState) -> bool:
        if self._stopping:
            self._attempts_since_stop += 1
        return self._attempts_since_stop >= LAST_ATTEMPTS

    def _say_why(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        self._log.warning("worker_waits", reason=str(error), attempt=state.attempt_number)
