"""Properties of what frames do: beside a snapshot, in any order of streams, with any reports of usage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.chat.sem_conversation import Conversation, event, frame
from voicethere.core.chat.replay import ReplayBuffer
from voicethere.wire.sem import EVENT_DATA, SemEvent, UndecodableSem, decode_frame

IDS = ["m1", "m2", "m3"]


class ScriptedGateway:
    """As the contract wants it: one counter of versions, gapless `seq`, the full content in every upsert."""

    def __init__(self) -> None:
        self.entities: dict[str, dict[str, Any]] = {}
        self.running: set[str] = set()
        self.version = 0
        self.frames: list[SemEvent] = []
        self.used: dict[str, int] = {}

    def do(self, what: str, id: str, number: int) -> None:
        if what == "prompt":
            self._upsert(f"u{self.version}", role="user", content=f"prompt {number}", streaming=False)
        elif what == "log":
            entity = {"id": f"l{self.version}", "kind": "log_line", "props": {"n": number}, "createdAtMs": 5}
            self._upsert_entity(entity)
        elif what == "delta":
            if id not in self.running:
                self.running.add(id)
                self._say("llm.start", id, {"role": "assistant"})
            self._say("llm.delta", id, {"delta": "x"}, metadata={"model": f"model-{number}"})
            known = self.entities.get(id, {"props": {"content": ""}})["props"]["content"]
            self._upsert(id, role="assistant", content=f"{known}{number}", streaming=True)
        elif what == "end" and id in self.running:
            self.running.discard(id)
            self.used[id] = self.used.get(id, 0) + number
            usage = {"usage": {"outputTokens": self.used[id]}, "durationMs": 10}
            self._say("llm.final", id, {"text": ""}, metadata=usage)
            content = self.entities[id]["props"]["content"]
            self._upsert(id, role="assistant", content=content, streaming=False)
        elif what == "think":
            self._say("llm.thinking.start", f"t{id}", {})
            self._say("llm.thinking.final", f"t{id}", {})

    def snapshot(self) -> tuple[int, list[dict[str, Any]]]:
        return self.version, json.loads(json.dumps(list(self.entities.values())))

    def latest_again(self, versions: dict[str, int]) -> list[SemEvent]:
        return [
            event("timeline.upsert", entity["id"], {"version": versions[id], "entity": entity})
            for id, entity in json.loads(json.dumps(self.entities)).items()
        ]

    def _upsert(self, id: str, **props: Any) -> None:
        self._upsert_entity({"id": id, "kind": "message", "createdAtMs": 5, "props": props})

    def _upsert_entity(self, entity: dict[str, Any]) -> None:
        self.version += 1
        self.entities[entity["id"]] = entity
        self._say("timeline.upsert", entity["id"], {"version": self.version, "entity": entity})

    def _say(self, type: str, id: str, data: Any, **fields: Any) -> None:
        self.frames.append(event(type, id, data, seq=len(self.frames) + 1, **fields))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["prompt", "log", "delta", "delta", "delta", "end", "end", "think"]),
        st.sampled_from(IDS),
        st.integers(0, 9),
    ),
    max_size=14,
)


@pytest.mark.states(
    "sem-chat/connect/replay-order", "sem-chat/connect/failed-hydration-replay", "sem-chat/version/order"
)
@settings(max_examples=250, deadline=None)
@given(STEPS, st.data())
def test_any_interleaving_of_snapshot_and_frames_gives_the_same_timeline(
    steps: list[tuple[str, str, int]], data: st.DataObject
) -> None:
    """sem-chat: "frames that arrive before the snapshot is applied are buffered, then replayed".

    The socket opens at any time (the latest entities come again, without `seq`), the snapshot is taken at
    any time before or after that, or never; any number of frames has come before it is applied, in any order,
    some of them twice. Streams and totals come out the same, too.
    """
    opened = data.draw(st.integers(0, len(steps)), "opened after")
    taken = data.draw(st.none() | st.integers(0, len(steps)), "snapshot taken after")
    gateway = ScriptedGateway()
    again: list[SemEvent] = []
    first_frame = 0
    snapshot: tuple[int, list[dict[str, Any]]] | None = None
    frames_at_snapshot = 0
    for done in range(len(steps) + 1):
        if done == opened:
            versions = {
                heard.data.entity.id: heard.data.version
                for heard in gateway.frames
                if heard.type == "timeline.upsert"
            }
            again = gateway.latest_again(versions)
            first_frame = len(gateway.frames)
        if done == taken:
            snapshot, frames_at_snapshot = gateway.snapshot(), len(gateway.frames)
        if done < len(steps):
            gateway.do(*steps[done])
    heard = gateway.frames[first_frame:]
    earliest = max(0, frames_at_snapshot - first_frame)
    held = data.draw(st.integers(earliest, len(heard)), "frames before the snapshot is applied")

    buffer = ReplayBuffer()
    early = heard[:held]
    twice = data.draw(st.lists(st.sampled_from(early), max_size=3), "twice") if early else []
    for frame_ in [*again, *data.draw(st.permutations([*early, *twice]), "arrival")]:
        buffer.add(frame_)
    client = Conversation()
    if snapshot is not None:
        assert client.snapshot(snapshot[0], *snapshot[1]) == (len(snapshot[1]), 0)
    for replayed in buffer.drain():
        client.registry.apply(client.context, replayed)
    for live in heard[held:]:
        client.registry.apply(client.context, live)

    assert {entity.id: (entity.kind, entity.created_at, entity.props) for entity in client.entities} == {
        id: (entity["kind"], entity["createdAtMs"], entity["props"])
        for id, entity in gateway.entities.items()
    }
    assert [entity.id for entity in client.entities] == list(gateway.entities)
    assert set(client.context.streams.running) == gateway.running
    assert client.streams is bool(gateway.running)
    finals = {final.id for final in heard if final.type == "llm.final"}
    assert client.total == sum(gateway.used[id] for id in finals)
    assert client.history == ()


STREAM_EVENTS = st.tuples(
    st.sampled_from([type for type in EVENT_DATA if type.startswith("llm.")]), st.sampled_from(IDS)
)


@pytest.mark.states("sem-chat/text/streams-while-any")
@settings(max_examples=150, deadline=None)
@given(st.lists(STREAM_EVENTS, max_size=20))
def test_after_any_order_of_events_a_conversation_streams_while_any_stream_runs(
    events: list[tuple[str, str]],
) -> None:
    """sem-chat: "A conversation streams while any of its streams runs", and every stream ends."""
    client = Conversation()
    runs: set[str] = set()
    for type, id in events:
        client.hear(type, id, {"delta": "x", "cumulative": "x", "text": "x"})
        if type.endswith((".start", ".delta")):
            runs.add(id)
        else:
            runs.discard(id)
        assert set(client.context.streams.running) == runs
        assert client.streams is bool(runs)
    for id in IDS:
        client.hear("llm.final", id)
    assert not client.streams


@pytest.mark.states("sem-chat/metadata/totals-by-difference")
@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(IDS), st.integers(-2, 9), st.none() | st.integers(0, 9), st.integers(0, 9)),
        max_size=15,
    )
)
def test_totals_are_the_most_that_each_message_reported(
    reports: list[tuple[str, int, int | None, int]],
) -> None:
    """sem-chat: "grow by the difference to what the same message reported before": nothing counts twice."""
    client = Conversation()
    most: dict[tuple[str, str], int] = {}
    before = 0
    for id, *counts in reports:
        usage = dict(zip(("inputTokens", "outputTokens", "cachedTokens"), counts, strict=True))
        client.hear("llm.final", id, metadata={"usage": usage})
        for name, count in usage.items():
            most[id, name] = max(most.get((id, name), 0), count or 0)
        assert client.total == sum(most.values()) >= before
        before = client.total


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = [
    "id",
    "delta",
    "cumulative",
    "text",
    "role",
    "version",
    "entity",
    "kind",
    "props",
    "content",
    "streaming",
]
NAMES += [
    "level",
    "message",
    "fields",
    "title",
    "data",
    "pauseId",
    "deadlineMs",
    "code",
    "session_id",
    "usage",
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*EVENT_DATA, "other"]),
    st.text(max_size=4),
    st.dictionaries(st.sampled_from(NAMES), JSON | st.dictionaries(st.sampled_from(NAMES), JSON), max_size=4),
    JSON,
)
def test_no_frame_whatever_it_holds_raises(type: str, id: str, data: Any, metadata: Any) -> None:
    """Undecodable, ignored, carried out or recorded: nothing else can become of a frame."""
    client = Conversation()
    try:
        heard = decode_frame(frame(type, id, data, metadata=metadata))
    except UndecodableSem:
        return
    assert heard is not None
    client.registry.apply(client.context, heard)
    assert client.streams is bool(client.context.streams)
    for record in client.history:
        assert record.message
        assert type == "session.error" or record.kind.value == "sem_decode_error"
