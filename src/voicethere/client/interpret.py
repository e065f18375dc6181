"""What a client makes of a message on `voice-control` (contract: control-channel.md). No I/O.

Lenient where an older or newer runner may differ: a code that is not known is passed on, an optional field
of the wrong shape is left out.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from voicethere.client.local_errors import local_error
from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.records import ENVELOPE_TYPE, SessionErrorEnvelope
from voicethere.wire.control_channel import EndReason, SpeechEvent

_IDLE = EndReason.IDLE_TIMEOUT.value
_CLEAN = frozenset({EndReason.CLIENT_CLOSE_SIGNAL.value, EndReason.AGENT_DISCONNECTED.value})


class ErrorReported(msgspec.Struct, frozen=True):
    """For `on_session_error`; it ends the session unless it is recoverable."""

    envelope: SessionErrorEnvelope


class SessionClosed(msgspec.Struct, frozen=True):
    """The runner ends the session. `error`: what to report if nothing explained the end; None: clean."""

    reason: str
    error: SessionErrorEnvelope | None


class TokenReplaced(msgspec.Struct, frozen=True):
    """A new join token. Not for the application."""

    token: str
    expires_at: str


class SpeechEventReceived(msgspec.Struct, frozen=True):
    """For `on_speech_event`; `payload` for `on_control_message` where there is none."""

    event: SpeechEvent
    payload: dict[str, Any]


class ApplicationMessage(msgspec.Struct, frozen=True):
    """For `on_control_message`: any JSON value. `problem` says why it is not what its `type` claims."""

    payload: Any
    problem: str | None = None


class Unreadable(msgspec.Struct, frozen=True):
    """Not JSON; the words say so."""

    problem: str


Meaning = (
    ErrorReported | SessionClosed | TokenReplaced | SpeechEventReceived | ApplicationMessage | Unreadable
)


def interpret(text: str, session_id: str) -> Meaning:
    """What `text` means to the client of `session_id`. Never raises."""
    try:
        payload = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return Unreadable(f"a message from the runner is not JSON: {error}")
    if not isinstance(payload, dict):
        return ApplicationMessage(payload)
    match payload.get("type"):
        case "session_error":
            envelope = read_envelope(payload)
            if envelope is None:
                return ApplicationMessage(payload, "a session_error without code, message or session_id")
            return ErrorReported(envelope)
        case "agent_error":
            return ErrorReported(_legacy(payload, session_id))
        case "session_close":
            return _closed(payload, session_id)
        case "session_reconnect_token":
            token, expires_at = payload.get("token"), payload.get("expiresAt")
            if isinstance(token, str) and isinstance(expires_at, str):
                return TokenReplaced(token, expires_at)
            return Unreadable("a session_reconnect_token without token or expiresAt")
        case "speech_event":
            try:
                return SpeechEventReceived(msgspec.convert(payload, SpeechEvent), payload)
            except msgspec.ValidationError as error:
                return ApplicationMessage(payload, f"a speech_event that is not one: {error}")
        case _:
            return ApplicationMessage(payload)


def read_envelope(fields: dict[str, Any]) -> SessionErrorEnvelope | None:
    """The envelope, where it is well-formed: `type`, `code`, `message` and `session_id` are text."""
    code, message, session_id = fields.get("code"), fields.get("message"), fields.get("session_id")
    if not (isinstance(code, str) and isinstance(message, str) and isinstance(session_id, str)):
        return None
    if fields.get("type") != ENVELOPE_TYPE:
        return None
    context = fields.get("customer_context")
    return SessionErrorEnvelope(
        code=code,
        message=message,
        session_id=session_id,
        project_id=_text(fields, "project_id"),
        build_id=_text(fields, "build_id"),
        stack=_text(fields, "stack"),
        recoverable=fields.get("recoverable") is True,
        customer_context=context if isinstance(context, dict) else UNSET,
        occurred_at=_text(fields, "occurred_at"),
    )


def _text(fields: dict[str, Any], name: str) -> str | msgspec.UnsetType:
    value = fields.get(name)
    return value if isinstance(value, str) else UNSET


def _legacy(fields: dict[str, Any], session_id: str) -> SessionErrorEnvelope:
    error = local_error(SessionErrorCode.AGENT_CHILD_CRASHED, session_id, recoverable=False)
    message = fields.get("message")
    if isinstance(message, str) and message:
        return msgspec.structs.replace(error, message=message)
    return error


def _closed(fields: dict[str, Any], session_id: str) -> SessionClosed:
    said = [value for value in (fields.get("code"), fields.get("reason")) if isinstance(value, str) and value]
    message = fields.get("message")
    detail = message if isinstance(message, str) else ""
    if _IDLE in said:
        return SessionClosed(_IDLE, local_error(SessionErrorCode.SESSION_IDLE_TIMEOUT, session_id))
    for value in said:
        if value in _CLEAN:
            return SessionClosed(value, None)
    reason = said[0] if said else "unknown"
    detail = f"The runner closed the session: {detail or reason}."
    return SessionClosed(
        reason,
        local_error(SessionErrorCode.WEBRTC_CONNECTION_CLOSED, session_id, detail=detail, recoverable=False),
    )
