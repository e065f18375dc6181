"""The short ways for frames that are as they should be: they take nothing that the long ways refuse."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.chat import TimelineEntity
from voicethere.core.chat import checks
from voicethere.wire import sem

HUGE = 10**30


def deep(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = [value]
    return value


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.just({}),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
ENTITIES = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=3) | VALUES,
        "kind": st.just("message") | VALUES,
        "createdAtMs": st.integers(-5, 2**65) | st.just("7") | VALUES,
        "updatedAtMs": st.just("9" * 19) | VALUES,
        "props": st.dictionaries(st.text(max_size=3), VALUES, max_size=3) | VALUES,
        "meta": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2) | VALUES,
    },
)
DATA = st.one_of(
    VALUES,
    st.fixed_dictionaries({}, optional={"id": st.text(max_size=3), "delta": VALUES, "text": VALUES}),
    st.fixed_dictionaries({}, optional={"convId": VALUES, "version": VALUES, "entity": ENTITIES | VALUES}),
    st.fixed_dictionaries({}, optional={"level": VALUES, "message": VALUES, "fields": VALUES}),
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "data": DATA,
        "type": st.sampled_from([*sem.EVENT_DATA, "agent.message"]) | VALUES,
        "id": st.text(max_size=3) | VALUES,
        "metadata": VALUES,
        "seq": st.integers() | VALUES,
        "stream_id": VALUES,
    },
)
FRAMES = st.fixed_dictionaries({}, optional={"event": EVENTS | VALUES, "sem": st.just(True) | VALUES})


def read(decode: Any, text: str) -> Any:
    try:
        return decode(text)
    except sem.UndecodableSem as error:
        return str(error)


@given(FRAMES)
def test_a_frame_is_read_at_once_as_it_is_read_in_parts(frame: dict[str, Any]) -> None:
    text = json.dumps(frame)
    assert read(sem.decode_frame, text) == read(sem._read_in_parts, text)


@pytest.mark.parametrize("type", list(sem.EVENT_DATA))
@given(data=DATA, metadata=VALUES)
def test_every_known_event_is_read_at_once_as_in_parts(type: str, data: Any, metadata: Any) -> None:
    text = json.dumps({"event": {"metadata": metadata, "data": data, "id": "1", "type": type}, "sem": True})
    assert read(sem.decode_frame, text) == read(sem._read_in_parts, text)


@pytest.mark.parametrize(
    "text",
    [
        '{"sem":true,"event":{"type":"log","type":"llm.start","id":"1","data":{}}}',
        '{"sem":true,"event":{"type":"llm.start","id":"1","data":7,"data":{}}}',
        '{"sem":true,"event":{"type":"llm.start","id":"1","data":{},"data":7}}',
        '{"sem":true,"sem":false,"event":{"type":"llm.start","id":"1","data":{}}}',
        '{"sem":true,"event":{"type":"llm.start","id":"1","data":{"id":"\\ud800"}}}',
        '{"sem":true,"event":{"type":"llm.start","id":"1","data":{}}} trailing',
        '{"sem":true,"event":{"type":"llm.start","id":"1","data":{}}',
    ],
)
def test_what_is_odd_is_read_at_once_as_in_parts(text: str) -> None:
    assert read(sem.decode_frame, text) == read(sem._read_in_parts, text)


def decoded(**fields: Any) -> TimelineEntity:
    return TimelineEntity(**{"id": "e", "kind": "message", "created_at": 1, **fields})


@pytest.mark.parametrize(
    "props",
    [
        {},
        {"content": "x", "streaming": True, "n": None, "f": 1.5, "i": -(2**63)},
        {"list": [1, {"a": [2**64 - 1]}]},
        {"deep": deep(63)},
    ],
)
def test_a_decoded_entity_keeps_its_properties(props: dict[str, Any]) -> None:
    entity = decoded(props=props)
    assert checks.decoded_entity(entity) is entity
    assert checks.entity(entity) == entity


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": ""}, "entity.id"),
        ({"id": "x" * 1_025}, "entity.id"),
        ({"kind": ""}, "entity.kind"),
        ({"kind": "x" * 1_025}, "entity.kind"),
        ({"created_at": -1}, "created_at"),
        ({"created_at": 2**63 - 1}, "created_at"),
        ({"updated_at": -1}, "updated_at"),
        ({"updated_at": 2**63 - 1}, "updated_at"),
        ({"version": 2**63}, "version"),
        ({"props": {"x": HUGE}}, r"entity\.props\.x must fit 64 bits"),
        ({"props": {"x": [{"y": -HUGE}]}}, r"entity\.props\.x\[0\]\.y must fit 64 bits"),
        ({"props": {"x": deep(64)}}, "nested deeper than 64 levels"),
    ],
)
def test_a_decoded_entity_is_refused_like_any_other(fields: dict[str, Any], words: str) -> None:
    entity = decoded(**fields)
    with pytest.raises(ValueError, match=words):
        checks.decoded_entity(entity)
    with pytest.raises(ValueError, match=words):
        checks.entity(entity)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity"])
def test_no_decoder_makes_a_number_that_is_not_finite(number: str) -> None:
    """So the short way does not look for one."""
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(f"[{number}]")
