"""Makes the error records of one session and brings them, and its end, into the queue.

An error is minted with its id, redacted and bounded, before the first attempt to send or queue it. Queueing
is tried until it is done: a session does not count as ended before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
import tenacity

from voicethere.core.ports import Clock, ErrorQueuePort, QueueUnavailable
from voicethere.errors import Bounds, Cause, ErrorRecord, Redactor, SessionErrorCode, make_record
from voicethere.errors.ids import error_id
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.runner.gauges import RunnerCounts
from voicethere.wire.control_channel import EndReason
from voicethere.wire.queue import ErrorItem, QueueItem, SessionEndedItem
from voicethere.wire.relay import DeployedAgent

_log = structlog.get_logger(__name__)


class Reporter:
    """One per session."""

    def __init__(
        self,
        *,
        session_id: str,
        agent: DeployedAgent,
        queue: ErrorQueuePort,
        clock: Clock,
        redactor: Redactor,
        bounds: Bounds,
        counts: RunnerCounts,
    ) -> None:
        self._session_id = session_id
        self._agent = agent
        self._queue = queue
        self._clock = clock
        self._redactor = redactor
        self._bounds = bounds
        self._counts = counts
        self._recorded = 0
        self._pending: set[asyncio.Task[None]] = set()
        self._order = asyncio.Lock()

    def record(
        self,
        cause: Cause,
        *,
        code: SessionErrorCode,
        recoverable: bool,
        customer_context: Mapping[str, Any] | None,
    ) -> ErrorRecord:
        """Make the record; it is logged and queued behind what is sent in this turn of the event loop."""
        now = self._clock.now()
        self._recorded += 1
        record = make_record(
            cause,
            code=code,
            error_id=error_id(now, self._recorded),
            session_id=self._session_id,
            project_id=self._agent.project_id,
            build_id=self._agent.build_id,
            occurred_at=now,
            redactor=self._redactor,
            bounds=self._bounds,
            error_message=self._agent.settings.error_message,
            customer_context=None if customer_context is None else dict(customer_context),
            recoverable=recoverable,
        )
        self._counts.errors[record.code] += 1
        self._queue_soon(ErrorItem(record=record))
        return record

    async def durable(self) -> None:
        """Return once every error recorded so far is durable: in the queue, or in the spool before it."""
        while self._pending:
            await asyncio.wait(self._pending)

    async def queue_end(self, *, end_reason: EndReason, failed: bool) -> None:
        """Queue the session's end behind its errors; returns once it is durable."""
        self._queue_soon(
            SessionEndedItem(
                session_id=self._session_id,
                project_id=self._agent.project_id,
                end_reason=end_reason.value,
                failed=failed,
                ended_at=iso_from_epoch(self._clock.now()),
            )
        )
        await self.durable()

    def _queue_soon(self, item: QueueItem) -> None:
        task = asyncio.create_task(self._put(item), name=f"queue {self._session_id}")
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _put(self, item: QueueItem) -> None:
        # The client is told first: a channel sends what it was given in the loop's next turn.
        await asyncio.sleep(0)
        if isinstance(item, ErrorItem):
            self._log_error(item.record)
        # One at a time, so that a session's items keep their order through retries.
        async with self._order:
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(QueueUnavailable),
                wait=tenacity.wait_exponential(multiplier=0.05, max=1.0),
                before_sleep=self._queue_is_down,
                reraise=True,
            ):
                with attempt:
                    await self._queue.put([item])

    def _log_error(self, record: ErrorRecord) -> None:
        _log.warning(
            "session_error",
            session_id=self._session_id,
            project_id=self._agent.project_id,
            error_id=record.id,
            code=record.code.value,
            message=record.message,
        )

    def _queue_is_down(self, state: tenacity.RetryCallState) -> None:
        self._counts.queue_put_failures += 1
        problem = state.outcome.exception() if state.outcome else None
        _log.error(
            "queue_unavailable",
            session_id=self._session_id,
            attempt=state.attempt_number,
            waiting=len(self._pending),
            problem=str(problem),
        )
