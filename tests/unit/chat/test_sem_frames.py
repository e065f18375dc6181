"""Reading SEM frames and timeline snapshots of a server that nobody vouches for (sem-chat.md)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicethere.core.chat.entities import TimelineEntity, entity_of
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire import sem


def frame(type: str, data: Any = None, **fields: Any) -> str:
    return json.dumps({"sem": True, "event": {"type": type, "id": "m1", "data": data, **fields}})


ENTITY = {
    "id": "e",
    "kind": "message",
    "createdAtMs": 1,
    "updatedAtMs": "2",
    "props": {"content": "x"},
    "meta": {"a": "b"},
}
DATA: dict[str, Any] = {
    "llm.start": {"id": "m1", "role": "assistant"},
    "llm.thinking.start": {"id": "m1", "role": "thinking"},
    "llm.delta": {"id": "m1", "delta": "lo", "cumulative": "hello"},
    "llm.thinking.delta": {"id": "m1", "delta": "h", "cumulative": "h"},
    "llm.final": {"id": "m1", "text": "hello"},
    "llm.thinking.summary": {"id": "m1", "text": "hm"},
    "llm.thinking.final": {"id": "m1"},
    "timeline.upsert": {"convId": "c", "version": 7, "entity": ENTITY},
    "log": {"level": "warn", "message": "m", "fields": {"a": 1}},
    "agent.mode": {"title": "t", "data": {"a": None}},
    "debugger.pause": {"pauseId": "p", "phase": "x", "summary": "s", "deadlineMs": "5", "extra": {}},
    "session.error": {
        "type": "session_error",
        "code": "AGENT_HANDLER_FAILED",
        "message": "m",
        "session_id": "s",
        "recoverable": True,
    },
}


def test_every_event_of_the_contract_is_here() -> None:
    assert set(DATA) == set(sem.EVENT_DATA)


@pytest.mark.states("sem-chat/event/data", "sem-chat/frame/shape", "sem-chat/frame/seq")
@pytest.mark.parametrize("type", list(DATA))
def test_a_known_event_has_its_data_typed_and_whole(type: str) -> None:
    event = sem.decode_frame(frame(type, DATA[type], seq=3, stream_id="s", metadata={"model": "x"}))
    assert event is not None
    assert isinstance(event.data, sem.EVENT_DATA[type])
    assert (event.type, event.id, event.seq, event.stream_id) == (type, "m1", 3, "s")
    assert event.metadata == {"model": "x"}
    again = json.loads(msgspec.json.encode(event.data))
    assert again | DATA[type] == again


def test_an_unknown_event_passes_with_its_data_as_it_came() -> None:
    event = sem.decode_frame(frame("agent.message", {"any": [1, None]}))
    assert event is not None
    assert event.data == {"any": [1, None]}
    assert (event.seq, event.stream_id, event.metadata) == (msgspec.UNSET, msgspec.UNSET, msgspec.UNSET)


@pytest.mark.states("sem-chat/frame/not-a-frame", "sem-chat/frame/seq")
@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        "7",
        '"sem"',
        "{}",
        '{"sem": true}',
        '{"sem": false, "event": {"type": "log", "id": "x"}}',
        '{"sem": 1, "event": {"type": "log", "id": "x"}}',
        '{"sem": "true", "event": {"type": "log", "id": "x"}}',
        '{"sem": true, "event": {"type": "log"}}',
        '{"sem": true, "event": {"type": 7, "id": "x"}}',
        '{"sem": true, "event": {"type": "log", "id": "x", "seq": "3"}}',
        '{"sem": true, "event": []}',
    ],
)
def test_json_that_is_not_such_a_frame_is_ignored(text: str) -> None:
    assert sem.decode_frame(text) is None
    assert sem.decode_frame(text.encode()) is None


@pytest.mark.states("sem-chat/frame/not-json")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        '{"sem": true, "event": {"type": "log", "id": "x"}',
        '{"sem": 1, "event": nonsense',
        '{"sem": true, "event": {"type": "x", "id": "x", "data": {]}}}',
        "[" * 100_000,
        '{"sem": true, "event": {"type": "x", "id": "x", "data": ' + "[" * 100_000,
        b'{"sem": true, "event": {"type": "\xff", "id": "x"}}',
        '{"sem": true, "event": {"type": "\ud800", "id": "x"}}',
        "\x00",
    ],
    ids=range(10),
)
def test_text_that_is_not_json_is_a_decode_error(text: str | bytes) -> None:
    with pytest.raises(sem.UndecodableSem, match="not JSON") as refused:
        sem.decode_frame(text)
    assert len(str(refused.value)) < 500


@pytest.mark.states("seed-2/problem/metadata/parse-category")
def test_a_known_event_without_the_shape_of_its_data_is_a_decode_error_that_names_both() -> None:
    with pytest.raises(sem.UndecodableSem, match=r"'llm\.delta'.*Expected `str`, got `int`.*delta"):
        sem.decode_frame(frame("llm.delta", {"delta": 7}))
    with pytest.raises(sem.UndecodableSem, match=r"'timeline\.upsert'.*entity"):
        sem.decode_frame(frame("timeline.upsert"))


def test_data_that_is_missing_is_read_as_empty() -> None:
    event = sem.decode_frame('{"sem": true, "event": {"type": "llm.start", "id": "x"}}')
    assert event is not None
    assert event.data == sem.LlmStart()


@pytest.mark.states("sem-chat/metadata/bad")
@pytest.mark.parametrize("metadata", [7, "x", [], None])
def test_bad_metadata_is_ignored_not_fatal(metadata: Any) -> None:
    event = sem.decode_frame(frame("llm.final", DATA["llm.final"], metadata=metadata))
    assert event is not None
    assert event.metadata is msgspec.UNSET


def test_a_session_error_carries_the_envelope_and_unknown_codes() -> None:
    event = sem.decode_frame(frame("session.error", {**DATA["session.error"], "code": "NEW_CODE"}))
    assert event is not None
    assert isinstance(event.data, SessionErrorEnvelope)
    assert (event.data.code, event.data.recoverable) == ("NEW_CODE", True)


@pytest.mark.states("sem-chat/entity/numbers")
@pytest.mark.parametrize(("given_number", "number"), [(5, 5), ("5", 5), ("9223372036854775807", 2**63 - 1)])
def test_64_bit_whole_numbers_come_as_numbers_or_strings(given_number: Any, number: int) -> None:
    data = {"version": given_number, "entity": {"id": "e", "kind": "k", "createdAtMs": given_number}}
    event = sem.decode_frame(frame("timeline.upsert", data))
    assert event is not None
    assert sem.whole_number(event.data.version) == number
    assert entity_of(event.data.entity, number).created_at == number


@pytest.mark.states("sem-chat/entity/no-fractions")
@pytest.mark.parametrize("bad", [1.5, "1.5", "2026-01-01", "", True, 2**63, "9223372036854775808", [], "1e3"])
def test_fractions_and_dates_are_no_whole_numbers(bad: Any) -> None:
    for data in (
        {"version": 1, "entity": {"id": "e", "kind": "k", "createdAtMs": bad}},
        {"version": bad, "entity": {"id": "e", "kind": "k"}},
    ):
        with pytest.raises(sem.UndecodableSem):
            sem.decode_frame(frame("timeline.upsert", data))


def snapshot(*entities: Any, **fields: Any) -> str:
    return json.dumps({"convId": "c", "version": "4", "serverTimeMs": 9, "entities": entities, **fields})


GOOD = {
    "id": "e",
    "kind": "message",
    "createdAtMs": "1",
    "props": {"consumedAt": None},
    "meta": {"a": "b"},
    "new": 1,
}


@pytest.mark.states("sem-chat/entity/fields", "sem-chat/entity/unknown-fields", "sem-chat/entity/null")
def test_a_snapshot_is_read_with_unknown_fields_ignored_and_null_in_props_kept() -> None:
    reading = sem.decode_snapshot(snapshot(GOOD))
    assert (reading.refused, reading.problems) == (0, ())
    entity = entity_of(reading.snapshot.entities[0], sem.whole_number(reading.snapshot.version))
    assert entity == TimelineEntity("e", "message", 1, None, 4, {"consumedAt": None})


@pytest.mark.states("sem-chat/entity/reader-skips", "sem-chat/entity/props", "sem-chat/entity/meta")
@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "message"},
        {"id": "", "kind": "message"},
        {"id": "x"},
        {"id": "x", "kind": ""},
        {"id": 7, "kind": "message"},
        {**GOOD, "props": []},
        {**GOOD, "meta": {"a": 1}},
        {**GOOD, "createdAtMs": 1.5},
        {**GOOD, "updatedAtMs": "9223372036854775808"},
        None,
        "entity",
    ],
)
def test_our_reader_skips_a_bad_entity_and_says_which(bad: Any) -> None:
    reading = sem.decode_snapshot(snapshot(GOOD, bad, GOOD))
    assert [entity.id for entity in reading.snapshot.entities] == ["e", "e"]
    assert (reading.snapshot.conv_id, reading.snapshot.version, reading.refused) == ("c", "4", 1)
    assert len(reading.problems) == 1
    assert reading.problems[0].startswith("entities[1]: ")


def test_the_problems_of_a_snapshot_are_bounded() -> None:
    reading = sem.decode_snapshot(snapshot(*[{}] * 1_000))
    assert (reading.refused, len(reading.problems)) == (1_000, 20)


def test_an_empty_conversation_is_a_snapshot() -> None:
    for body in ('{"convId": ""}', '{"entities": []}', '{"version": 0}'):
        assert sem.decode_snapshot(body).snapshot == sem.TimelineSnapshot()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>",
        "[]",
        "null",
        "{}",
        '{"error": "no such key"}',
        snapshot(version="x"),
        snapshot(entities={}),
        b"\xff",
        "[" * 100_000,
    ],
)
def test_a_body_that_makes_no_sense_is_an_error(body: str | bytes) -> None:
    with pytest.raises(sem.UndecodableSem, match="snapshot"):
        sem.decode_snapshot(body)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_is_a_frame_nothing_or_a_decode_error(text: str | bytes) -> None:
    for read in (sem.decode_frame, sem.decode_snapshot):
        try:
            read(text)
        except sem.UndecodableSem:
            pass
