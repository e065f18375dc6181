"""What an error is: the envelope that a client sees and the record that is queued and stored.

Both are plain values. They are made in one place (`convert.make_record`), where they are redacted and
bounded; nothing downstream may add raw data to them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from voicethere.errors.codes import ErrorSource, SessionErrorCode

ENVELOPE_TYPE = "session_error"


class SessionErrorEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """The `session_error` message of the seed, field for field and in its order.

    `code` is a plain string: a reader passes on a code that it does not know (control-channel.md).
    `occurred_at` is ISO-8601 UTC with milliseconds and a `Z`.
    """

    type: str = ENVELOPE_TYPE
    code: str
    message: str
    session_id: str
    project_id: str | UnsetType = UNSET
    build_id: str | UnsetType = UNSET
    stack: str | UnsetType = UNSET
    recoverable: bool = False
    customer_context: dict[str, Any] | UnsetType = UNSET
    occurred_at: str | UnsetType = UNSET


class ErrorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One error, redacted and bounded, with the id that it keeps for good.

    `message` is for the operator (what happened), `client_message` for the person on the call. `id` is
    minted once, before the first attempt to send or queue it: the store inserts on it at most once.
    """

    id: str
    session_id: str
    project_id: str
    build_id: str | None
    source: ErrorSource
    code: SessionErrorCode
    message: str
    client_message: str
    stack: str | None
    recoverable: bool
    customer_context: dict[str, Any] | None
    occurred_at: str
    details: dict[str, Any]

    def envelope(self, *, with_stack: bool = True) -> SessionErrorEnvelope:
        """The envelope that tells a client of this error; `with_stack=False` omits that one field."""
        return SessionErrorEnvelope(
            code=self.code.value,
            message=self.client_message,
            session_id=self.session_id,
            project_id=self.project_id or UNSET,
            build_id=self.build_id or UNSET,
            stack=self.stack if with_stack and self.stack else UNSET,
            recoverable=self.recoverable,
            customer_context=self.customer_context if self.customer_context is not None else UNSET,
            occurred_at=self.occurred_at,
        )
