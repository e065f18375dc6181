"""The worker: takes errors and ends of sessions off the queue and stores them.

The order is what makes it exact: receive, commit, and only then acknowledge. Where it dies in between, the
items come again and change nothing. Knows no database and no queue by name.
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
            while not self._stopping:
                await self._step(limit=self._batch, wait_seconds=WAIT_SECONDS)
            if self._empties_queue:
                await self._drain()
        except (StoreUnavailable, QueueUnavailable) as error:
            self._log.error("worker_stopped_early", reason=str(error), remedy="the items stay in the queue")
        finally:
            self._finished.set()

    async def stop(self) -> None:
        """Make `run` end, and return when it has. Stop the producers first: it may take what is there now."""
        self._stopping = True
        await self._finished.wait()

    async def _drain(self) -> None:
        left = await self._persist(self._queue.depth)
        while left > 0:
            taken = await self._step(limit=min(left, self._batch), wait_seconds=0.0)
            if not taken:
                return
            left -= taken

    async def _step(self, *, limit: int, wait_seconds: float) -> int:
        """Receive, commit, acknowledge; how many items there were."""
        deliveries = await self._persist(lambda: self._queue.receive(limit=limit, wait_seconds=wait_seconds))
        if not deliveries:
            return 0
        await self._store_all(deliveries)
        positions = [delivery.position for delivery in deliveries]
        await self._persist(lambda: self._queue.acknowledge(positions))
        return len(deliveries)

    async def _store_all(self, deliveries: Sequence[Delivery]) -> None:
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
                unreadable=len(poison),
                remedy="look at the table dead_letters: each row names its problem",
            )
        if self._on_committed is not None:
            self._on_committed(committed)
        if self._on_batch is not None:
            self._on_batch(WorkedBatch(deliveries, committed, time.monotonic() - started))

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
