"""The one table between session error codes and chat records."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.chat import ChatErrorKind, ChatErrorStage, ChatStore, actions, selectors
from voicethere.errors.chat_codes import (
    CHAT_KIND,
    CHAT_STAGES,
    UNKNOWN_STAGE,
    chat_error,
    chat_stage,
    session_error_code,
    session_error_envelope,
)
from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.records import SessionErrorEnvelope


@pytest.mark.states("chat-state/codes", "seed-2/questions/codes")
def test_the_table_covers_every_session_error_code() -> None:
    """chat-state: "codes are constants in one place, shared with the session error catalog"."""
    assert set(CHAT_STAGES) == set(SessionErrorCode)


def test_the_table_speaks_of_kinds_and_stages_that_exist() -> None:
    assert ChatErrorKind(CHAT_KIND) is ChatErrorKind.RUNTIME_ERROR
    assert ChatErrorStage(UNKNOWN_STAGE) is ChatErrorStage.UNKNOWN
    assert {ChatErrorStage(stage) for stage in CHAT_STAGES.values()} == {
        ChatErrorStage.CONNECT,
        ChatErrorStage.STREAM,
        ChatErrorStage.DISCONNECT,
    }


@pytest.mark.states("chat-state/producers/session-error/stage")
@pytest.mark.parametrize(
    ("code", "stage"),
    [
        ("PROVISIONING_FAILED", "connect"),
        ("AGENT_HANDLER_FAILED", "stream"),
        ("AGENT_CHILD_CRASHED", "stream"),
        ("RUNNER_INTERNAL", "stream"),
        ("SESSION_END_FAILED", "disconnect"),
        ("SESSION_IDLE_TIMEOUT", "disconnect"),
        ("TOMORROWS_CODE", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_stage_follows_from_the_code(code: str, stage: str) -> None:
    assert chat_stage(code) == stage


@given(
    st.sampled_from([*(code.value for code in SessionErrorCode), "TOMORROWS_CODE"]),
    st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable() and text == text.strip() != ""),
    st.booleans(),
    st.dictionaries(st.sampled_from("ab"), st.integers(-5, 5) | st.none()),
)
def test_a_record_leads_back_to_its_code_and_envelope(
    code: str, message: str, recoverable: bool, context: dict[str, int | None]
) -> None:
    envelope = SessionErrorEnvelope(
        code=code, message=message, session_id="s", recoverable=recoverable, customer_context=context
    )
    error = chat_error(envelope)
    store = ChatStore()
    store.dispatch(
        actions.push_error(
            "c",
            kind=error.kind,
            stage=error.stage,
            message=error.message,
            code=error.code,
            recoverable=error.recoverable,
            details=error.details,
        )
    )
    record = selectors.select_current_error(store.state, "c")
    assert record is not None
    assert session_error_code(record.code) == (None if code == "TOMORROWS_CODE" else SessionErrorCode(code))
    assert session_error_envelope(record.details) == envelope
    assert msgspec.to_builtins(envelope) == record.details
    assert (record.message, record.recoverable) == (message, recoverable)


def test_records_of_other_failures_lead_to_no_session_error() -> None:
    assert session_error_code(None) is None
    assert session_error_code("HTTP_TEAPOT") is None
    for details in (None, {}, {"url": "https://host"}, {"code": 7, "message": "m", "session_id": "s"}):
        assert session_error_envelope(details) is None
