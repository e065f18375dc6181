"""What a `session.error` event does: a record of the conversation, as the one table of codes says.

Knows nothing of how errors are shown; `mirror` puts them into the timeline for a client that wants that.
"""

from __future__ import annotations

from voicethere.core.chat import actions, checks, selectors
from voicethere.core.chat.sem_context import SemContext
from voicethere.errors.chat_codes import chat_error
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.sem import SemEvent

SESSION_ERROR_SOURCE = "session.error"


def session_error(context: SemContext, event: SemEvent) -> None:
    """`session.error`: the envelope becomes a record, named by the event (the stored row's id).

    The same error told again is left alone; a gateway that names all errors alike still has each recorded.
    """
    envelope: SessionErrorEnvelope = event.data
    error = chat_error(envelope)
    named = 0 < len(event.id) <= checks.MAX_ID_CHARS
    for record in selectors.select_error_history(context.store.state, context.conv_id):
        if named and record.id == event.id:
            told_of = (record.details or {}).get("occurred_at")
            if record.code == error.code and told_of and told_of == error.details.get("occurred_at"):
                return
            named = False
            break
    context.store.dispatch(
        actions.push_error(
            context.conv_id,
            kind=error.kind,
            stage=error.stage,
            message=error.message,
            source=SESSION_ERROR_SOURCE,
            code=error.code,
            recoverable=error.recoverable,
            details=error.details,
            id=event.id if named else None,
        )
    )
