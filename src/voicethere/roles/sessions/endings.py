"""What the clients of a session hear that has ended without a word of its runner: what the database says."""

from __future__ import annotations

from msgspec import UNSET

from voicethere.adapters.store.store import SessionRecord, Store
from voicethere.errors.codes import CATALOG, SessionErrorCode
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.control_plane import SessionErrorRow
from voicethere.wire.relay import SessionOver

_PAGE = 100


async def ended_notice(store: Store, session_id: str, record: SessionRecord | None) -> SessionOver:
    """For a session that has ended (or was deleted: `record` is None): with what ended it, if it failed.

    Raises:
        StoreUnavailable: the database is away.
    """
    if record is None or not record.failed:
        return SessionOver(session_id=session_id)
    return SessionOver(session_id=session_id, error=_envelope(record, await _what_ended(store, record)))


async def _what_ended(store: Store, record: SessionRecord) -> SessionErrorRow | None:
    """The last error that its session did not go on after; there may be many before it."""
    last: SessionErrorRow | None = None
    cursor: str | None = None
    while True:
        page = await store.session_errors(record.project_id, record.id, limit=_PAGE, cursor=cursor)
        for row in page.errors:
            if not row.recoverable:
                last = row
        cursor = page.next_cursor
        if cursor is None:
            return last


def _envelope(record: SessionRecord, row: SessionErrorRow | None) -> SessionErrorEnvelope:
    """As its clients should have heard it.

    Of one whose error is no row (it became a dead letter) only that it failed is known: that is told, too.
    The context of a row is redacted; the session's own is not, and is left out.
    """
    code = SessionErrorCode.RUNNER_INTERNAL.value if row is None else row.code
    said = None if row is None else row.client_message
    context = None if row is None else row.customer_context
    return SessionErrorEnvelope(
        code=code,
        # What an operator reads is not for the person on the call.
        message=said or CATALOG[SessionErrorCode(code)].message,
        session_id=record.id,
        project_id=record.project_id,
        build_id=record.build_id or UNSET,
        recoverable=False,
        customer_context=UNSET if context is None else context,
        occurred_at=UNSET if row is None else row.occurred_at,
    )
