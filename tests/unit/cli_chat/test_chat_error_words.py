"""Every error a chat client can record has words, and advice that fits what can be done."""

from __future__ import annotations

import itertools

import pytest

from voicethere.chat import ChatErrorKind, ChatErrorRecord, ChatErrorStage
from voicethere.cli.chat.error_words import clock_time, error_facts, error_words
from voicethere.errors import CATALOG, SessionErrorCode


def _record(kind: str, stage: str, **fields: object) -> ChatErrorRecord:
    given: dict[str, object] = {"message": "the message", "recoverable": True, "at": 1, **fields}
    return ChatErrorRecord(id="e", kind=ChatErrorKind(kind), stage=ChatErrorStage(stage), **given)  # type: ignore[arg-type]


@pytest.mark.states("seed-2/alternatives/one-source")
@pytest.mark.parametrize(("kind", "stage"), [*itertools.product(ChatErrorKind, ChatErrorStage)])
@pytest.mark.parametrize("recoverable", [True, False])
def test_every_kind_at_every_stage_has_words_and_advice(kind: str, stage: str, recoverable: bool) -> None:
    words = error_words(_record(kind, stage, recoverable=recoverable))
    assert words.title
    assert words.message == "the message"
    assert words.advice.endswith((".", "?"))


@pytest.mark.states("seed-2/problem/no-text-heuristics")
@pytest.mark.parametrize(("kind", "stage"), [*itertools.product(ChatErrorKind, ChatErrorStage)])
def test_what_to_do_does_not_depend_on_what_the_message_says(kind: str, stage: str) -> None:
    for recoverable in (True, False):
        told = {
            (words.title, words.advice)
            for message in (
                "the message",
                "retry now: timeout, 503, connection lost",
                "401 forbidden key",
                "é",
            )
            for words in [error_words(_record(kind, stage, recoverable=recoverable, message=message))]
        }
        assert len(told) == 1


@pytest.mark.parametrize("code", [*SessionErrorCode])
def test_every_session_error_code_is_explained_from_the_catalog(code: SessionErrorCode) -> None:
    record = _record("runtime_error", "stream", code=code.value, recoverable=False)
    words, facts = error_words(record), dict(error_facts(record))
    assert code.value in words.title
    assert "starts a new session" in words.advice
    assert facts["Cause"] == CATALOG[code].cause
    assert facts["For the operator"] == CATALOG[code].remedy


def test_a_session_that_goes_on_is_not_called_over() -> None:
    words = error_words(_record("runtime_error", "stream", code="AGENT_CHILD_CRASHED"))
    assert words.advice.startswith("The session goes on.")


def test_a_code_that_nobody_knows_is_explained_by_kind_and_status() -> None:
    words = error_words(_record("http_error", "send", status=429, code="OUT_OF_TOKENS"))
    assert words.title == "The limit is reached for now"
    assert "^R" in words.advice


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (302, "elsewhere (302)"),
        (400, "refused (400)"),
        (401, "key"),
        (403, "key"),
        (404, "address"),
        (413, "too long"),
        (500, "(500)"),
        (503, "(503)"),
        (999, "(999)"),
        (None, "refused"),
    ],
)
def test_each_status_says_what_it_means_here(status: int | None, said: str) -> None:
    assert said in error_words(_record("http_error", "send", status=status)).title


def test_facts_leave_out_what_is_not_known_and_count_repeats() -> None:
    assert "Code" not in dict(error_facts(_record("ws_error", "stream")))
    facts = dict(error_facts(_record("ws_error", "stream", details={"repeats": 3}, status=500)))
    assert facts["Came again"] == "3 times"
    assert facts["HTTP status"] == "500"


def test_a_time_that_no_calendar_has_is_no_crash() -> None:
    assert clock_time(8_640_000_000_000_000) == "?"
