"""What a poll of a session is answered, from what the database says of it and of the line.

Pure: takes values, gives the message of session-api.md.
"""

from __future__ import annotations

from msgspec import UNSET

from voicethere.adapters.store.records import SessionRecord, WaitingPlace
from voicethere.errors.times import later
from voicethere.wire.session_api import Credentials, FailureCode, ProvisioningStatus, SessionState

_HINT_MS = 250
_LONGEST_HINT_MS = 5000
_HINT_PER_PLACE_MS = 1000


def state_of(
    record: SessionRecord,
    *,
    place: WaitingPlace | None,
    wait_seconds: float,
    estimated_wait_seconds: float | None,
    credentials: Credentials | None,
) -> SessionState:
    """The answer. `place`, None where the session does not wait, is kept for `wait_seconds` after a poll."""
    status, failure_code, message = record.status, record.failure_code, record.failure_message
    if record.ended_at is not None and status not in (ProvisioningStatus.READY, ProvisioningStatus.FAILED):
        # It ended before it was written down as ready: whoever polls must not wait for what never comes.
        status = ProvisioningStatus.FAILED
        failure_code = FailureCode.ORCHESTRATOR_ERROR
        message = "The session ended before it was ready; its errors say why."
    if status is ProvisioningStatus.WAITING and place is None:
        status = ProvisioningStatus.PROVISIONING  # it left the line in this very moment
    settled = status in (ProvisioningStatus.READY, ProvisioningStatus.FAILED)
    return SessionState(
        session_id=record.id,
        project_id=record.project_id,
        build_id=record.build_id,
        status=status,
        failure_code=failure_code or UNSET,
        failure_message=message or UNSET,
        queue_position=UNSET if place is None else place.position,
        waiting_since=UNSET if place is None else place.waiting_since,
        waiting_expires_at=UNSET if place is None else later(place.last_seen, wait_seconds),
        queue_last_seen_at=UNSET if place is None else place.last_seen,
        estimated_wait_seconds=UNSET if estimated_wait_seconds is None else estimated_wait_seconds,
        retry_after_ms=UNSET if settled else retry_hint_ms(place),
        credentials=UNSET if credentials is None else credentials,
        created_at=record.created_at,
        updated_at=record.updated_at,
        completed_at=record.completed_at or UNSET,
        ended_at=record.ended_at or UNSET,
        end_reason=record.end_reason or UNSET,
    )


def retry_hint_ms(place: WaitingPlace | None) -> int:
    """When to ask again: soon while something is under way, less often far back in the line."""
    if place is None:
        return _HINT_MS
    return min(_LONGEST_HINT_MS, _HINT_PER_PLACE_MS * place.position)
