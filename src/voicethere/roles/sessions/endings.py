"""What the clients of a session hear that has ended without a word of its runner: what the database says."""

from __future__ import annotations

from msgspec import UNSET

from voicethere.adapters.store.store import SessionRecord, Store
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.relay import SessionOver

_MOST_ERRORS = 100


async def ended_notice(store: Store, session_id: str, record: SessionRecord | None) -> SessionOver:
    """For a session that has ended (or was deleted: `record` is None): with what ended it, if it failed.

    Raises:
        StoreUnavailable: the database is away.
    """
    if record is None or not record.failed:
        return SessionOver(session_id=session_id)
    return SessionOver(session_id=session_id, error=await _stored_error(store, record))


async def _stored_error(store: Store, record: SessionRecord) -> SessionErrorEnvelope | None:
    """What ended the session, as its clients should have heard it."""
    page = await store.session_errors(record.project_id, record.id, limit=_MOST_ERRORS, cursor=None)
    fatal = [row for row in page.errors if not row.recoverable]
    if not fatal:
        return None
    row = fatal[-1]
    return SessionErrorEnvelope(
        code=row.code,
        message=row.client_message or row.message,
        session_id=record.id,
        project_id=record.project_id,
        build_id=row.build_id or UNSET,
        recoverable=False,
        customer_context=UNSET if row.customer_context is None else row.customer_context,
        occurred_at=row.occurred_at,
    )
