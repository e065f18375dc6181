"""What the session service itself queues: the errors of failed jobs and lost sessions, and quiet ends.

Makes the records; queueing is tried until it is done. Does not decide what has failed.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import structlog
import tenacity

from voicethere.adapters.store.store import SessionRecord, Store, StoreUnavailable
from voicethere.core.ports import Clock, ErrorQueuePort, QueueUnavailable
from voicethere.errors import Redactor, make_record
from voicethere.errors.codes import ErrorSource, SessionErrorCode
from voicethere.errors.records import ErrorRecord
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.background import Background
from voicethere.roles.sessions.hosted import HostedSession
from voicethere.wire.control_channel import EndReason
from voicethere.wire.queue import ErrorItem, QueueItem, SessionEndedItem
from voicethere.wire.session_api import FailureCode

_CLOCK_SLACK_SECONDS = 1.0

_log = structlog.get_logger(__name__)

# Ids of errors are derived from what they are about: a service that starts again and does not know whether
# it had queued one makes the same record again, and it is stored once.
_ERROR_IDS = uuid.UUID("6f2c8a52-6a0b-5f57-9d5e-2b0f6a3f9c11")


class Outcomes:
    """How sessions end of which no runner can tell (any more)."""

    def __init__(self, *, store: Store, queue: ErrorQueuePort, clock: Clock, background: Background) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._background = background

    async def job_failed(self, session: SessionRecord, code: FailureCode, message: str) -> None:
        """Queue the error and the end of a failed provisioning job."""
        timed_out = code is FailureCode.TIMEOUT
        record = make_record(
            message,
            code=(
                SessionErrorCode.PROVISIONING_TIMEOUT if timed_out else SessionErrorCode.PROVISIONING_FAILED
            ),
            error_id=_error_id(session.id, "provisioning"),
            session_id=session.id,
            project_id=session.project_id,
            build_id=session.build_id,
            occurred_at=self._clock.now(),
            redactor=await self._redactor(session.project_id),
            customer_context=session.customer_context,
            source=ErrorSource.PROVISIONING,
            details={"failure_code": code.value},
        )
        _log.warning("provisioning_failed", session_id=session.id, failure_code=code.value, message=message)
        self._queue_soon([ErrorItem(record=record), self._end(session.id, session.project_id, failed=True)])

    async def runner_lost(self, session: HostedSession) -> ErrorRecord:
        """Queue the error and the end of a session whose runner is gone; the record is for its clients."""
        record = make_record(
            f"The runner {session.runner_id} is gone and did not come back.",
            code=SessionErrorCode.RUNNER_INTERNAL,
            error_id=_error_id(session.session_id, "runner-lost"),
            session_id=session.session_id,
            project_id=session.project_id,
            build_id=session.build_id,
            occurred_at=self._clock.now(),
            redactor=await self._redactor(session.project_id),
            customer_context=session.customer_context,
            recoverable=False,
            source=ErrorSource.RUNNER,
            details={"runner_id": session.runner_id},
        )
        _log.error("runner_lost", session_id=session.session_id, runner_id=session.runner_id)
        self._queue_soon(
            [ErrorItem(record=record), self._end(session.session_id, session.project_id, failed=True)]
        )
        return record

    def unclaimed(self, session: HostedSession) -> None:
        """Queue the end, without an error, of a session that nobody joined and no runner has ended."""
        self._queue_soon([self._end(session.session_id, session.project_id, failed=False)])

    async def words_in_the_queue(self, *, missing_seconds: float) -> bool:
        """Whether something that was put so long ago, or before, is still on its way into the database.

        It may be a lost runner's last words.
        """
        try:
            oldest = await self._queue.oldest_seconds()
        except QueueUnavailable:
            return True
        return oldest is not None and oldest >= missing_seconds - _CLOCK_SLACK_SECONDS

    def _end(self, session_id: str, project_id: str, *, failed: bool) -> SessionEndedItem:
        reason = EndReason.ERROR if failed else EndReason.CLIENT_DISCONNECTED
        return SessionEndedItem(
            session_id=session_id,
            project_id=project_id,
            end_reason=reason.value,
            failed=failed,
            ended_at=iso_from_epoch(self._clock.now()),
        )

    async def _redactor(self, project_id: str) -> Redactor:
        secrets: set[str] = set()
        try:
            secrets.update((await self._store.get_secrets(project_id)).values())
            agent = await self._store.deployed_agent(project_id)
            if agent is not None:
                secrets.update(agent.secrets.values())  # those of the deploy may be older
        except StoreUnavailable:
            # An error that is redacted by its shape only beats one that is never told.
            _log.warning("redacting_without_secrets", project_id=project_id)
        return Redactor(secrets=secrets)

    def _queue_soon(self, items: Sequence[QueueItem]) -> None:
        self._background.spawn(self._put(items), name="queue outcome")

    async def _put(self, items: Sequence[QueueItem]) -> None:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(QueueUnavailable),
            wait=tenacity.wait_exponential(multiplier=0.05, max=2.0),
            before_sleep=_queue_is_down,
        ):
            with attempt:
                await self._queue.put(items)


def _error_id(session_id: str, about: str) -> str:
    return uuid.uuid5(_ERROR_IDS, f"{session_id}/{about}").hex


def _queue_is_down(state: tenacity.RetryCallState) -> None:
    problem = state.outcome.exception() if state.outcome else None
    _log.error("queue_unavailable", attempt=state.attempt_number, problem=str(problem))
