"""What a client makes of each message on voice-control."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from voicethere.client.interpret import (
    ApplicationMessage,
    ErrorReported,
    SessionClosed,
    SpeechEventReceived,
    TokenReplaced,
    Unreadable,
    interpret,
)
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.errors.times import parse_iso
from voicethere.wire.control_channel import SpeechEventType

ENVELOPE = {
    "type": "session_error",
    "code": "AGENT_CHILD_CRASHED",
    "message": "Sorry, something went wrong.",
    "session_id": "s1",
    "project_id": "p1",
    "build_id": "b1",
    "stack": "Error: …\n  at …",
    "recoverable": False,
    "customer_context": {"userId": "u_123"},
    "occurred_at": "2026-06-19T12:00:00.000Z",
}


def meaning(payload: Any) -> Any:
    return interpret(msgspec.json.encode(payload).decode(), "s1")


def test_an_envelope_is_passed_on_as_it_is() -> None:
    got = meaning(ENVELOPE)
    assert isinstance(got, ErrorReported)
    assert msgspec.to_builtins(got.envelope) == ENVELOPE


def test_an_unknown_code_and_the_least_an_envelope_may_have() -> None:
    got = meaning({"type": "session_error", "code": "NEW", "message": "", "session_id": "other"})
    assert got == ErrorReported(SessionErrorEnvelope(code="NEW", message="", session_id="other"))


@pytest.mark.parametrize("missing", ["code", "message", "session_id"])
def test_what_is_not_well_formed_is_a_message_like_any_other(missing: str) -> None:
    for value in (None, 7):
        payload = ENVELOPE | {missing: value}
        got = meaning(payload)
        assert isinstance(got, ApplicationMessage)
        assert got.payload == payload
        assert got.problem is not None


def test_optional_fields_of_a_wrong_shape_are_left_out() -> None:
    got = meaning(ENVELOPE | {"stack": None, "customer_context": "x", "recoverable": "yes", "build_id": 1})
    assert isinstance(got, ErrorReported)
    assert got.envelope.stack is UNSET
    assert got.envelope.customer_context is UNSET
    assert got.envelope.build_id is UNSET
    assert got.envelope.recoverable is False


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"message": "boom"}, "boom"),
        ({}, "Sorry, something went wrong."),
        ({"message": 5}, "Sorry, something went wrong."),
    ],
)
def test_the_legacy_agent_error(fields: dict[str, Any], message: str) -> None:
    got = meaning({"type": "agent_error"} | fields)
    assert isinstance(got, ErrorReported)
    envelope = got.envelope
    assert (envelope.code, envelope.message) == ("AGENT_CHILD_CRASHED", message)
    assert (envelope.session_id, envelope.recoverable) == ("s1", False)
    assert isinstance(envelope.occurred_at, str)
    parse_iso(envelope.occurred_at)


@pytest.mark.parametrize(
    ("fields", "reason", "code"),
    [
        ({"code": "idle_timeout"}, "idle_timeout", "SESSION_IDLE_TIMEOUT"),
        ({"reason": "idle_timeout"}, "idle_timeout", "SESSION_IDLE_TIMEOUT"),
        ({"code": "x", "reason": "client_close_signal"}, "client_close_signal", None),
        ({"code": "agent_disconnected"}, "agent_disconnected", None),
        ({"reason": "agent_error"}, "agent_error", "WEBRTC_CONNECTION_CLOSED"),
        ({}, "unknown", "WEBRTC_CONNECTION_CLOSED"),
        ({"code": 5, "reason": None}, "unknown", "WEBRTC_CONNECTION_CLOSED"),
    ],
)
def test_session_close(fields: dict[str, Any], reason: str, code: str | None) -> None:
    got = meaning({"type": "session_close"} | fields)
    assert isinstance(got, SessionClosed)
    assert got.reason == reason
    assert (got.error.code if got.error is not None else None) == code
    assert got.error is None or got.error.recoverable is False


def test_tokens_speech_events_and_the_rest() -> None:
    token = {"type": "session_reconnect_token", "token": "t", "expiresAt": "2026-06-19T12:00:00.000Z"}
    assert meaning(token) == TokenReplaced("t", "2026-06-19T12:00:00.000Z")
    assert isinstance(meaning(token | {"token": None}), Unreadable)
    event = {"type": "speech_event", "event": "user_speech_final", "ts": "x", "text": "hello"}
    got = meaning(event)
    assert isinstance(got, SpeechEventReceived)
    assert got.event.event is SpeechEventType.USER_SPEECH_FINAL
    assert got.payload == event
    unknown = meaning(event | {"event": "sneeze"})
    assert isinstance(unknown, ApplicationMessage)
    assert unknown.problem is not None
    for payload in (
        {"type": "agent_speak", "text": "hi", "ts": "x"},
        {"type": 5},
        {},
        [1],
        "text",
        None,
        1.5,
    ):
        assert meaning(payload) == ApplicationMessage(payload)


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    interpret(text, "s1")
    interpret('{"type":"session_error","code":' + text, "s1")


@given(
    st.dictionaries(st.sampled_from(list(ENVELOPE)), st.none() | st.integers() | st.text() | st.booleans())
)
def test_no_envelope_breaks_it(changes: dict[str, Any]) -> None:
    for kind in ("session_error", "agent_error", "session_close", "session_reconnect_token", "speech_event"):
        meaning(ENVELOPE | {"type": kind} | changes)


def test_deep_nesting_is_unreadable() -> None:
    assert isinstance(interpret("[" * 100_000, "s1"), Unreadable)
