"""What an application is told of a session's end, and that it is told once."""

from __future__ import annotations

import msgspec

from voicethere.client.ending import ConnectError, Ending, SessionEnd
from voicethere.client.interpret import SessionClosed
from voicethere.errors.records import SessionErrorEnvelope


def error(code: str, *, recoverable: bool = False) -> SessionErrorEnvelope:
    return SessionErrorEnvelope(code=code, message="words", session_id="s1", recoverable=recoverable)


def test_recoverable_errors_are_told_and_explain_nothing() -> None:
    ending = Ending()
    assert ending.heard_error(error("A", recoverable=True))
    assert ending.heard_error(error("A", recoverable=True))
    assert not ending.begun
    assert not ending.settled.is_set()
    assert ending.outcome() is None


def test_nothing_is_told_after_the_error_that_ends_the_session() -> None:
    ending = Ending()
    last = error("AGENT_HANDLER_FAILED")
    assert ending.heard_error(last)
    assert not ending.heard_error(error("RUNNER_INTERNAL"))
    assert not ending.heard_error(error("B", recoverable=True))
    assert ending.begun
    assert ending.settled.is_set()
    assert ending.outcome() == SessionEnd(reason="AGENT_HANDLER_FAILED", error=last)
    assert ending.heard_close(SessionClosed("agent_error", None))
    assert ending.outcome() == SessionEnd(reason="agent_error", error=last)


def test_the_first_close_counts() -> None:
    ending = Ending()
    assert ending.heard_close(SessionClosed("client_close_signal", None))
    assert not ending.heard_close(SessionClosed("idle_timeout", None))
    assert ending.outcome() == SessionEnd(reason="client_close_signal")


def test_the_exception_speaks_the_errors_words() -> None:
    assert str(ConnectError(SessionEnd(reason="A", error=error("A")))) == "words"
    assert "agent_disconnected" in str(ConnectError(SessionEnd(reason="agent_disconnected")))


def test_an_error_that_comes_again_after_a_loss_is_told_once() -> None:
    ending = Ending()
    first = SessionErrorEnvelope(
        code="A", message="words", session_id="s1", recoverable=True, occurred_at="2026-06-19T12:00:00.000Z"
    )
    later = msgspec.structs.replace(first, occurred_at="2026-06-19T12:00:00.001Z")
    assert [ending.heard_error(each) for each in (first, later, first)] == [True, True, False]
