"""What a session's client should have heard of an error, where the runner could not say it any more."""

from __future__ import annotations

from msgspec import UNSET

from voicethere.adapters.store.store import SessionRecord
from voicethere.errors.codes import CATALOG, SessionErrorCode
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.control_plane import SessionErrorRow


def unsaid_envelope(session: SessionRecord, row: SessionErrorRow | None) -> SessionErrorEnvelope:
    """As the session would have told the error of `row`.

    Of one whose error is no row (it became a dead letter) only that it failed is known: that is told, too.
    The context of a row is redacted; the session's own is not, and is left out.
    """
    code = SessionErrorCode.RUNNER_INTERNAL.value if row is None else row.code
    said = None if row is None else row.client_message
    context = None if row is None else row.customer_context
    return SessionErrorEnvelope(
        code=code,
        # What an operator reads is not for the client.
        message=said or CATALOG[SessionErrorCode(code)].message,
        session_id=session.id,
        project_id=session.project_id,
        build_id=session.build_id or UNSET,
        recoverable=row is not None and row.recoverable,
        customer_context=UNSET if context is None else context,
        occurred_at=UNSET if row is None else row.occurred_at,
    )
