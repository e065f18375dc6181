"""Session errors as chat records, and back: the one table between the codes and a record's kind and stage.

Kinds and stages are plain strings here (`ChatErrorKind` and `ChatErrorStage` are above this layer, and a test
holds the two together). What a code means to people is in `codes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.records import SessionErrorEnvelope

CHAT_KIND = "runtime_error"
"""The kind of every record that stands for a session error."""
UNKNOWN_STAGE = "unknown"
"""The stage of a code that this version does not know: a reader passes it on."""

CHAT_STAGES: Mapping[SessionErrorCode, str] = MappingProxyType(
    {
        SessionErrorCode.AGENT_HANDLER_FAILED: "stream",
        SessionErrorCode.AGENT_CHILD_CRASHED: "stream",
        SessionErrorCode.RUNNER_INTERNAL: "stream",
        SessionErrorCode.SESSION_END_FAILED: "disconnect",
        SessionErrorCode.IDLE_TIMEOUT_CALLBACK_FAILED: "disconnect",
        SessionErrorCode.IDLE_TIMEOUT_CALLBACK_TIMED_OUT: "disconnect",
        SessionErrorCode.SESSION_IDLE_TIMEOUT: "disconnect",
        SessionErrorCode.PROVISIONING_FAILED: "connect",
        SessionErrorCode.PROVISIONING_TIMEOUT: "connect",
        SessionErrorCode.WEBRTC_CONNECTION_FAILED: "connect",
        SessionErrorCode.WEBRTC_CONNECTION_CLOSED: "disconnect",
        SessionErrorCode.WEBRTC_CONNECT_TIMEOUT: "connect",
    }
)
"""What a conversation was about to do when an error of this code came."""


class ChatError(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the chat record that stands for a session error. `details`: the envelope as JSON data."""

    kind: str
    stage: str
    code: str
    message: str
    recoverable: bool
    details: dict[str, Any]


def chat_stage(code: str) -> str:
    """The stage of a record with this code; `unknown` for a code that is none of the catalog's."""
    known = session_error_code(code)
    return UNKNOWN_STAGE if known is None else CHAT_STAGES[known]


def chat_error(envelope: SessionErrorEnvelope) -> ChatError:
    """The chat record's fields for a session error: as the envelope says, kind and stage by the table."""
    details: dict[str, Any] = msgspec.to_builtins(envelope)
    return ChatError(
        kind=CHAT_KIND,
        stage=chat_stage(envelope.code),
        code=envelope.code,
        message=envelope.message,
        recoverable=envelope.recoverable,
        details=details,
    )


def session_error_code(code: str | None) -> SessionErrorCode | None:
    """The session error code that a chat record's `code` is; None where it is another's, or there is none."""
    if code is None:
        return None
    try:
        return SessionErrorCode(code)
    except ValueError:
        return None


def session_error_envelope(details: Mapping[str, Any] | None) -> SessionErrorEnvelope | None:
    """The envelope in a chat record's `details`, as `chat_error` put it there; None where it is none.

    Of a very large one some parts are cut: a record's details are bounded.
    """
    try:
        return msgspec.convert(dict(details or {}), SessionErrorEnvelope)
    except msgspec.ValidationError:
        return None
