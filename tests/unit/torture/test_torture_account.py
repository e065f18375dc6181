"""The account of a torture run: each thing that must not be is a difference, and nothing else is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tools.torture.account import Findings, settle
from tools.torture.chat_account import ChatFindings
from tools.torture.rows import Letter, LoggedError, Row, SessionRow
from tools.torture.synthetic import words_of


def row(identity: str, *, project: str = "prj", session: str = "ses", **fields: Any) -> Row:
    made = Row(
        id=identity,
        project_id=project,
        session_id=session,
        source="agent",
        code="AGENT_HANDLER_FAILED",
        message=words_of(identity, project),
        recoverable=False,
        occurred_at_ms=0,
    )
    return msgspec.structs.replace(made, **fields)


def ended(identity: str, *, failed: bool = False, **fields: Any) -> SessionRow:
    made = SessionRow(
        id=identity,
        project_id="prj",
        status="ready",
        runner_id="r-1",
        end_reason="error" if failed else "client_disconnected",
        failed=failed,
        ended_at_ms=1,
    )
    return msgspec.structs.replace(made, **fields)


def minted(identity: str) -> dict[str, Any]:
    return {"event": "minted", "at": 0.0, "id": identity, "project": "prj", "session": "ses"}


def accepted(identity: str) -> dict[str, Any]:
    return {"event": "accepted", "at": 0.0, "id": identity}


def life(*events: dict[str, Any], number: int = 1, session: str = "call") -> list[dict[str, Any]]:
    """A client that was connected, and what came then."""
    begin: list[dict[str, Any]] = [
        {"event": "started", "project": "prj", "intent": "leave"},
        {"event": "provisioned", "session": session, "ok": True, "code": None},
        {"event": "connected"},
    ]
    return [{"client": number, "at": float(at), **event} for at, event in enumerate([*begin, *events])]


TOLD = {"event": "told", "code": "RUNNER_INTERNAL", "recoverable": False, "occurred_at": None}
ENDED = {"event": "ended", "reason": "RUNNER_INTERNAL", "code": "RUNNER_INTERNAL"}
LEFT = {"event": "left"}


def findings(**fields: Any) -> Findings:
    """A run in which two errors were minted, accepted and stored, and one client left."""
    made = Findings(
        producer_events=[minted("a"), accepted("a"), minted("b"), accepted("b")],
        client_events=life(LEFT),
        chats=ChatFindings(events=[], conversations=[]),
        rows=[row("a"), row("b")],
        sessions=[ended("ses"), ended("call")],
        letters=[],
        suppressed=0,
        logged=[],
        killed_instances=frozenset(),
        spoken_by_services=frozenset(),
        waiting=0,
        spooled_files=[],
        restless=[],
        left_over=[],
        died_by_themselves=[],
    )
    return msgspec.structs.replace(made, **fields)


def differences(**fields: Any) -> list[str]:
    """The names of what differs."""
    return sorted({words.partition(":")[0] for words in settle(findings(**fields)).differences})


def test_a_run_that_balances_has_no_difference() -> None:
    account = settle(findings())
    assert account.differences == []
    assert account.remarks == []
    assert account.figures["minted"] == account.figures["accepted"] == account.figures["stored"] == 2
    assert account.figures["sessions started"] == account.figures["sessions left by their client"] == 1


# ------------------------------------------------------------------ errors


def test_what_was_accepted_and_is_not_there() -> None:
    account = settle(findings(rows=[row("a")]))
    assert account.differences == ["accepted but missing: b"]
    assert account.figures["stored"] == 1


def test_what_was_minted_and_never_accepted_may_be_there_or_not() -> None:
    events = [minted("a"), minted("b")]
    account = settle(findings(producer_events=events, rows=[row("a")]))
    assert account.differences == []
    assert account.figures["stored, in doubt"] == 1


def test_a_row_twice() -> None:
    assert differences(rows=[row("a"), row("b"), row("b")]) == ["duplicates"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"project_id": "other"},
        {"session_id": "other"},
        {"message": words_of("b", "prj")},
    ],
)
def test_a_row_out_of_its_project_its_session_or_with_another_ones_words(wrong: dict[str, str]) -> None:
    assert differences(rows=[row("a", **wrong), row("b")]) == ["out of its project"]


def test_a_row_that_nobody_minted() -> None:
    assert differences(rows=[row("a"), row("b"), row("c", session="call")]) == ["stored but never minted"]


def test_a_row_of_a_session_service_is_minted_by_what_it_logged() -> None:
    account = settle(
        findings(
            rows=[row("a"), row("b"), row("c", session="call")],
            sessions=[ended("ses"), ended("call", failed=True)],
            spoken_by_services=frozenset({"call"}),
        )
    )
    assert account.differences == []


def test_a_dead_letter() -> None:
    assert differences(letters=[Letter(problem="there is no session", data="{}")]) == ["dead letters"]


def logged(identity: str) -> LoggedError:
    return LoggedError(id=identity, session_id="call", project_id="prj", instance="r-1")


def test_a_runners_error_is_minted_by_its_log_line() -> None:
    rows = [row("a"), row("b"), row("c", session="call")]
    account = settle(findings(rows=rows, logged=[logged("c")]))
    assert account.differences == []
    assert account.figures["runners' errors, stored"] == 1


def test_a_runners_error_is_missing() -> None:
    assert differences(logged=[logged("c")]) == ["runners' errors missing"]


def test_a_runner_that_was_killed_takes_with_it_what_was_not_accepted_yet() -> None:
    account = settle(findings(logged=[logged("c")], killed_instances=frozenset({"r-1"})))
    assert account.differences == []
    assert account.figures["runners' errors, died with the process before a put returned"] == 1


def test_a_runners_error_in_another_project() -> None:
    rows = [row("a"), row("b"), row("c", session="call", project="other")]
    assert differences(rows=rows, logged=[logged("c")]) == ["runners' errors out of their project"]


# ------------------------------------------------------------------ sessions


def died(*events: dict[str, Any]) -> dict[str, Any]:
    """A session that failed, with its row, and what its client heard."""
    return {
        "client_events": life(*events),
        "sessions": [ended("ses"), ended("call", failed=True)],
        "rows": [row("a"), row("b"), row("c", session="call", code="RUNNER_INTERNAL")],
        "logged": [logged("c")],
    }


@pytest.mark.parametrize("events", [(TOLD, ENDED), (TOLD,), (ENDED,), (LEFT,)])
def test_a_client_whose_session_died_and_that_was_told_or_had_left(
    events: tuple[dict[str, Any], ...],
) -> None:
    account = settle(findings(**died(*events)))
    assert account.differences == []
    assert account.figures["sessions that died"] == account.figures["their clients told"] == 1


def test_a_client_whose_session_died_and_that_was_not_told() -> None:
    account = settle(findings(**died()))
    assert [words.partition(":")[0] for words in account.differences] == ["untold"]
    assert "call (ready, error, on r-1): 0.0s started leave" in account.differences[0]


def test_a_recoverable_error_does_not_tell_of_an_end() -> None:
    assert differences(**died({**TOLD, "recoverable": True})) == ["untold"]


def test_a_client_that_hears_neither_its_agent_nor_of_an_end() -> None:
    silent = {"event": "silent", "state": "connected"}
    assert differences(client_events=life(silent, LEFT)) == ["untold"]


def test_a_start_that_failed_is_told_by_its_outcome() -> None:
    events = [
        {"client": 1, "at": 0.0, "event": "started", "project": "prj", "intent": "leave"},
        {"client": 1, "at": 1.0, "event": "provisioned", "session": "", "ok": False, "code": "TIMEOUT"},
    ]
    assert differences(client_events=events) == []


def test_a_client_of_which_nothing_more_is_known() -> None:
    assert differences(client_events=life()[:1]) == ["untold"]


def test_a_session_without_an_end() -> None:
    assert differences(sessions=[ended("ses"), ended("call", ended_at_ms=None)]) == ["without an end"]


def test_a_session_that_failed_for_no_reason_that_is_stored() -> None:
    found = died(TOLD, ENDED) | {"rows": [row("a"), row("b")], "logged": []}
    assert differences(**found) == ["failed without an error"]


def test_a_session_in_another_project_than_its_client_asked_for() -> None:
    sessions = [ended("ses"), ended("call", project_id="other")]
    assert differences(sessions=sessions) == ["of another project"]


def test_a_client_that_gave_up_a_session_that_is_fine_is_shown() -> None:
    lost = {"event": "ended", "reason": "WEBRTC_CONNECTION_CLOSED", "code": "WEBRTC_CONNECTION_CLOSED"}
    account = settle(findings(client_events=life(lost)))
    assert account.differences == []
    assert account.figures["told of an end, though the session is fine"] == 1


def test_an_error_that_a_client_was_told_and_that_has_no_row_is_shown() -> None:
    found = died(TOLD, ENDED) | {"rows": [row("a"), row("b"), row("c", session="call")]}
    account = settle(findings(**found))
    assert account.differences == []
    assert account.figures["told of an error that has no row"] == 1


# ------------------------------------------------------------------ the rest


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("waiting", 3, "left in the queue"),
        ("waiting", -1, "left in the queue"),
        ("spooled_files", ["r1/1.spool"], "left in spools"),
        ("restless", ["0 items in the queue, 1 sessions without an end"], "not at rest"),
        ("left_over", ["a process on r1: 1 python"], "left over"),
        ("died_by_themselves", ["gw1 with status 1"], "ended by themselves"),
    ],
)
def test_what_is_left_over_is_a_difference(field: str, value: Any, name: str) -> None:
    assert differences(**{field: value}) == [name]


def test_many_differences_are_counted_whole_and_shown_in_part() -> None:
    events = [event for n in range(30) for event in (minted(f"m{n}"), accepted(f"m{n}"))]
    account = settle(findings(producer_events=events, rows=[]))
    assert account.figures["accepted but missing"] == 30
    assert len(account.differences) == 11
    assert account.differences[-1] == "accepted but missing: … and 20 more"
