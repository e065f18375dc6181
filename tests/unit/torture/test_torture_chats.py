"""The chats in a torture run's account: each thing that must not be is a difference, nothing else is."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tools.torture import chat_account
from tools.torture.chat_account import ChatFindings, ConversationRow, settle_chats
from tools.torture.chat_outcomes import Entity, Fate, answers_to_nobody, outcomes
from tools.torture.chat_words import ORDERS, Answered, Asked, prompt, read_answer, read_prompt
from tools.torture.frame_watch import FrameWatch
from tools.torture.ledger import Account, Ledger
from tools.torture.rows import LoggedError, Row

USER, AGENT, ERROR = "user", "assistant", "error"


def timeline(*what: tuple[str, str]) -> list[Entity]:
    """`(role, text)` of messages and `("error", code)`, in their order."""
    return [
        Entity(
            id=f"e{position}",
            kind="error" if role == ERROR else "message",
            position=position,
            props={"code": text} if role == ERROR else {"role": role, "content": text, "streaming": False},
        )
        for position, (role, text) in enumerate(what, 1)
    ]


def fates(*what: tuple[str, str]) -> list[Fate]:
    return [said.fate for said in outcomes(timeline(*what))]


# ------------------------------------------------------------------ words


def test_every_prompt_is_read_back() -> None:
    for order in ORDERS:
        assert read_prompt(prompt(Asked(17, order))) == Asked(17, order)
    assert read_prompt("answer to 1: end") is None


async def test_what_the_agent_writes_is_read_as_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from voicethere import agent

    monkeypatch.setattr(agent, "define_agent", lambda **_: None)
    bundle = runpy.run_path(str(Path(chat_account.__file__).with_name("chat_agent.py")))
    whole = "".join([word async for word in bundle["words"](12, 2, False)])
    assert read_answer(whole) == Answered(12, whole=True)
    assert read_answer(whole[:-4]) == Answered(12, whole=False)
    assert read_answer(whole[:6]) is None


# ------------------------------------------------------------------ outcomes


def test_prompts_that_are_answered_in_any_order_of_arrival() -> None:
    assert fates(
        (USER, "1 say"), (USER, "2 say"), (AGENT, "answer to 1: end"), (AGENT, "answer to 2: end")
    ) == [
        Fate.ANSWERED,
        Fate.ANSWERED,
    ]


def test_a_prompt_that_nobody_answers() -> None:
    assert fates((USER, "1 say"), (AGENT, ""), (USER, "2 say"), (AGENT, "answer to 2: end")) == [
        Fate.NOTHING,
        Fate.ANSWERED,
    ]


def test_a_prompt_with_two_answers() -> None:
    answer = (AGENT, "answer to 1: end")
    assert fates((USER, "1 say"), answer, answer) == [Fate.TWICE]
    assert fates((USER, "1 say"), (AGENT, "answer to 1: wor"), answer) == [Fate.TWICE]


def test_an_error_explains_the_prompts_before_it() -> None:
    said = outcomes(
        timeline((USER, "1 say"), (USER, "2 raise"), (ERROR, "AGENT_HANDLER_FAILED"), (USER, "3 say"))
    )
    assert [one.fate for one in said] == [Fate.ERROR, Fate.ERROR, Fate.NOTHING]
    assert [one.excuse for one in said] == ["e3", "e3", None]


def test_an_error_explains_what_was_cut_off_before_it() -> None:
    cut = (AGENT, "answer to 1: word 0")
    assert fates((USER, "1 break"), cut, (ERROR, "AGENT_HANDLER_FAILED")) == [Fate.CUT]
    assert fates((USER, "1 stream"), cut) == [Fate.NOTHING]


def test_an_error_behind_a_later_answer_explains_nothing_before_that() -> None:
    assert fates(
        (USER, "1 say"),
        (USER, "2 say"),
        (AGENT, "answer to 2: end"),
        (USER, "3 raise"),
        (ERROR, "AGENT_HANDLER_FAILED"),
    ) == [Fate.NOTHING, Fate.ANSWERED, Fate.ERROR]


def test_an_answer_that_arrives_behind_the_error_of_its_session_counts() -> None:
    assert fates((USER, "1 say"), (ERROR, "RUNNER_INTERNAL"), (AGENT, "answer to 1: end")) == [Fate.ANSWERED]


def test_an_idle_session_explains_nothing() -> None:
    assert fates((USER, "1 say"), (ERROR, "SESSION_IDLE_TIMEOUT")) == [Fate.NOTHING]


def test_what_is_said_while_the_agent_hangs_up_is_a_case_of_its_own() -> None:
    entities = timeline(
        (USER, "1 bye"),
        (USER, "2 say"),
        (USER, "3 say"),
        (AGENT, "answer to 1: end"),
        (AGENT, "answer to 2: end"),
        (USER, "4 say"),
        (AGENT, "answer to 4: end"),
        (USER, "5 say"),
    )
    sessions = {"e4": "one-1", "e5": "one-2", "e7": "two-1"}
    said = outcomes(msgspec.structs.replace(one, id=sessions.get(one.id, one.id)) for one in entities)
    assert [one.fate for one in said] == [
        Fate.ANSWERED,
        Fate.ANSWERED,
        Fate.HUNG_UP,
        Fate.ANSWERED,
        Fate.NOTHING,
    ]


def test_an_answer_to_a_prompt_that_is_not_there() -> None:
    assert answers_to_nobody(timeline((USER, "1 say"), (AGENT, "answer to 2: end"))) == ["e2"]


# ------------------------------------------------------------------ frames


def upsert(seq: int | None, version: int, entity: str = "m") -> str:
    data = {"convId": "c", "version": version, "entity": {"id": entity, "kind": "message"}}
    event: dict[str, Any] = {"type": "timeline.upsert", "id": entity, "data": data}
    if seq is not None:
        event["seq"] = seq
    return msgspec.json.encode({"sem": True, "event": event}).decode()


def watched(*frames: str) -> list[str]:
    """Of one socket; `frames` are what it gets, "" a new socket."""
    watch = FrameWatch()
    wrong: list[str] = []
    for frame in ("", *frames):
        if frame:
            wrong += watch.frame(frame)
        else:
            watch.opened()
    return wrong


def test_frames_as_they_should_be() -> None:
    assert watched(upsert(None, 3), upsert(None, 1, "n"), upsert(8, 4), upsert(9, 5)) == []
    # A slow reader is told the latest entities anew, and goes on further ahead; so does a new socket.
    assert watched(upsert(8, 4), upsert(None, 9), upsert(14, 10), "", upsert(None, 10), upsert(20, 12)) == []
    # What was told anew may be ahead of the frames that follow it.
    assert watched(upsert(None, 9), upsert(14, 7), upsert(15, 8)) == []


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ((upsert(8, 4), upsert(10, 5)), "seq 10 came behind seq 8"),
        ((upsert(8, 4), upsert(8, 5)), "seq 8 came behind seq 8"),
        ((upsert(8, 4), "", upsert(8, 5)), "seq 8 came after seq 8 had been seen"),
        ((upsert(8, 4), upsert(9, 4, "n")), "seq 9 has version 4, and 4 was seen before it"),
        ((upsert(8, 4), "", upsert(None, 3)), "m was told again as of version 3, and was seen as of 4"),
    ],
)
def test_frames_as_they_must_not_be(frames: tuple[str, ...], words: str) -> None:
    assert watched(*frames) == [words]


def test_only_entities_are_told_again() -> None:
    assert watched('{"sem": true, "event": {"type": "llm.start", "id": "1"}}') == [
        "a frame of type llm.start has no seq"
    ]


# ------------------------------------------------------------------ the account


def journal(*events: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"at": 0.0, "conversation": "c", **event} for event in events]


def asked(number: int, outcome: str = "accepted", **fields: Any) -> list[dict[str, Any]]:
    begin = {"event": "prompted", "number": number, "order": "say"}
    return [begin, {"event": outcome, "number": number, **fields}]


def settled(**fields: Any) -> dict[str, Any]:
    one = ["e1", "message", 1, 1, {"content": "1 say"}]
    made = {
        "event": "settled",
        "status": "connected",
        "streaming": False,
        "client": [one],
        "snapshot": [one],
    }
    return made | fields


BEGUN = {"event": "begun", "project": "prj"}
ANSWERED = ((USER, "1 say"), (AGENT, "answer to 1: end"))
FAILED = ((USER, "1 say"), (ERROR, "AGENT_CHILD_CRASHED"))


def conversation(*what: tuple[str, str], **fields: Any) -> ConversationRow:
    made = ConversationRow(
        id="c", project_id="prj", session_open=False, streams="[]", waiting=0, entities=timeline(*what)
    )
    return msgspec.structs.replace(made, **fields)


def account(
    *events: dict[str, Any],
    row: ConversationRow | None = None,
    rows: list[Row] | None = None,
    logged: list[LoggedError] | None = None,
    killed: frozenset[str] = frozenset(),
) -> Account:
    found = ChatFindings(
        events=journal(BEGUN, *events), conversations=[conversation(*ANSWERED) if row is None else row]
    )
    ledger = Ledger()
    settle_chats(found, ledger, rows or [], logged or [], killed)
    return Account(figures=ledger.figures, differences=ledger.differences, remarks=ledger.remarks)


def names(made: Account) -> list[str]:
    """Of what differs."""
    return [words.partition(":")[0] for words in made.differences]


def error_row(identity: str) -> Row:
    return Row(
        id=identity,
        project_id="prj",
        session_id="ses",
        source="agent",
        code="AGENT_CHILD_CRASHED",
        message="",
        recoverable=False,
        occurred_at_ms=0,
    )


def test_a_conversation_that_balances_has_no_difference() -> None:
    made = account(*asked(1), settled())
    assert (made.differences, made.remarks) == ([], [])
    assert made.figures["prompts accepted"] == made.figures["prompts stored"] == 1
    assert made.figures["prompts answered"] == 1


def test_an_accepted_prompt_that_is_not_there() -> None:
    assert names(account(*asked(1), *asked(2), settled())) == ["accepted prompts missing"]


def test_a_prompt_that_is_there_twice() -> None:
    row = conversation((USER, "1 say"), *ANSWERED)
    assert names(account(*asked(1), settled(), row=row)) == ["prompts stored twice"]


def test_a_prompt_in_doubt_may_be_there_or_not_and_is_answered_where_it_is() -> None:
    made = account(*asked(1, "doubted"), *asked(2, "doubted"), settled())
    assert made.differences == []
    assert made.figures["prompts in doubt"] == 2
    row = conversation((USER, "1 say"))
    assert names(account(*asked(1, "doubted"), settled(), row=row)) == [
        "prompts neither answered nor told of"
    ]


def test_a_refused_prompt_that_is_there() -> None:
    assert names(account(*asked(1, "refused", status=429), settled())) == ["prompts refused and stored"]
    made = account(*asked(1, "refused", status=503), settled())
    assert made.differences == []
    assert made.figures["prompts refused as the database went away, and stored"] == 1


def test_a_prompt_that_nobody_sent() -> None:
    assert names(account(settled())) == ["prompts that nobody sent"]


def failed(*events: dict[str, Any], **fields: Any) -> Account:
    fields = {"rows": [error_row("e2")]} | fields
    return account(*asked(1), *events, row=conversation(*FAILED), **fields)


def test_an_error_that_explains_a_prompt_is_told_by_its_record_or_by_the_timeline() -> None:
    record = {"event": "told", "id": "e2", "code": "AGENT_CHILD_CRASHED", "stage": "stream"}
    told = failed(record, settled())
    assert told.differences == []
    assert told.figures["told by a record"] == 1
    error = ["e2", "error", 2, 2, {}]
    shown = failed(settled(client=[error], snapshot=[error]))
    assert shown.differences == []
    assert shown.figures["told by the timeline alone"] == 1
    assert names(failed(settled())) == ["errors untold"]


def test_an_error_without_a_row() -> None:
    record = {"event": "told", "id": "e2", "code": "AGENT_CHILD_CRASHED", "stage": "stream"}
    assert names(failed(record, settled(), rows=[])) == ["errors without a row"]
    logged = LoggedError(id="e2", session_id="ses", project_id="prj", instance="r-1")
    made = failed(record, settled(), rows=[], logged=[logged], killed=frozenset({"r-1"}))
    assert made.differences == []
    assert made.figures["errors whose runner was killed before a put returned"] == 1


@pytest.mark.parametrize(
    ("events", "name"),
    [
        ([settled(client=[])], "timelines that differ"),
        ([settled(snapshot=[["e1", "message", 1, 1, {"content": "other"}]])], "timelines that differ"),
        ([settled(snapshot=None)], "timelines that differ"),
        ([], "timelines that differ"),
        ([settled(streaming=True)], "clients that still stream"),
        ([settled(), {"event": "wrong", "what": "seq 9 came behind seq 7"}], "frames out of order"),
    ],
)
def test_what_a_client_saw_is_what_there_is(events: list[dict[str, Any]], name: str) -> None:
    assert names(account(*asked(1), *events)) == [name]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"streams": '[{"id":"s"}]'}, "streams still open"),
        ({"waiting": 1}, "prompts that nobody took"),
        ({"session_open": True}, "conversations still in a session"),
    ],
)
def test_what_is_not_at_rest_is_a_difference(fields: dict[str, Any], name: str) -> None:
    assert names(account(*asked(1), settled(), row=conversation(*ANSWERED, **fields))) == [name]


def test_a_message_that_is_still_written_is_an_open_stream() -> None:
    (entity,) = timeline((AGENT, ""))
    entities = [*timeline(*ANSWERED), msgspec.structs.replace(entity, props={"streaming": True})]
    made = account(*asked(1), settled(), row=conversation(entities=entities))
    assert names(made) == ["streams still open"]
