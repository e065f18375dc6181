"""What the clients of a session hear that has ended without a word of its runner: what the database says."""

from __future__ import annotations

from voicethere.adapters.store.store import SessionRecord, Store
from voicethere.roles.unsaid import unsaid_envelope
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
    return SessionOver(session_id=session_id, error=unsaid_envelope(record, await _what_ended(store, record)))


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
