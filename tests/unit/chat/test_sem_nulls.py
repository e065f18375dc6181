"""Senders that write null for what they have not got, as proto3 JSON allows, are understood."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET

from voicethere.wire import sem


def event(type: str, data: Any, **fields: Any) -> sem.SemEvent:
    found = sem.decode_frame(
        json.dumps({"sem": True, "event": {"type": type, "id": "e", "data": data, **fields}})
    )
    assert found is not None
    return found


@pytest.mark.parametrize("type", ["llm.delta", "agent.message"])
def test_a_null_seq_or_stream_id_is_none_at_all(type: str) -> None:
    found = event(type, {}, seq=None, stream_id=None, metadata=None)
    assert (found.seq, found.stream_id, found.metadata) == (UNSET, UNSET, UNSET)


@pytest.mark.parametrize(
    ("type", "data", "read"),
    [
        ("llm.start", {"id": None, "role": None}, sem.LlmStart()),
        ("llm.delta", {"delta": "a", "cumulative": None}, sem.LlmDelta(delta="a")),
        ("llm.final", {"id": None, "text": None}, sem.LlmEnd()),
        ("log", {"level": None, "message": "m", "fields": None}, sem.Log(message="m")),
        ("debugger.pause", {"pauseId": "p", "deadlineMs": None}, sem.DebuggerPause(pause_id="p")),
    ],
)
def test_a_null_field_is_one_that_was_not_given(type: str, data: Any, read: Any) -> None:
    assert event(type, data).data == read


ENTITY = {"id": "m", "kind": "message", "createdAtMs": None, "updatedAtMs": None, "meta": None}


def test_a_null_in_an_entity_is_what_was_not_given_but_one_in_its_props_stays() -> None:
    entity = {**ENTITY, "props": {"consumedAt": None}}
    expected = sem.TimelineEntityData(id="m", kind="message", props={"consumedAt": None})
    upsert = event("timeline.upsert", {"convId": None, "version": None, "entity": entity}).data
    assert upsert == sem.TimelineUpsert(entity=expected)
    reading = sem.decode_snapshot(json.dumps({"convId": "c", "version": None, "entities": [entity]}))
    assert reading == (sem.TimelineSnapshot(conv_id="c", entities=[expected]), 0, ())
    assert event("timeline.upsert", {"entity": {**ENTITY, "props": None}}).data.entity.props == {}


@pytest.mark.parametrize("field", ["id", "kind"])
def test_an_entity_without_id_or_kind_is_bad_even_so(field: str) -> None:
    with pytest.raises(sem.UndecodableSem, match=field):
        event("timeline.upsert", {"entity": {**ENTITY, field: None}})
    reading = sem.decode_snapshot(
        json.dumps({"convId": "c", "entities": [{**ENTITY, field: None}, None, ENTITY]})
    )
    assert (len(reading.snapshot.entities), reading.refused) == (1, 2)


def test_a_snapshot_may_say_null_for_no_entities() -> None:
    """As a Go server writes a slice that was never made."""
    reading = sem.decode_snapshot('{"convId": "c", "version": 3, "serverTimeMs": null, "entities": null}')
    assert reading == (sem.TimelineSnapshot(conv_id="c", version=3), 0, ())
