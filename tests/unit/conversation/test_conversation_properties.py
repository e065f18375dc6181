"""Whatever a session says, in whatever order gateways apply it: what clients saw is what is kept."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.core.chat.entities import TimelineEntity, entity_of, merge
from voicethere.core.conversation import (
    Advanced,
    Composed,
    ConversationState,
    Skipped,
    StoredEntity,
    advance,
    compose,
    compose_prompt,
    number,
    placed,
    resend,
)
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.control_channel import EndReason
from voicethere.wire.relay import (
    ChatBody,
    ChatClosed,
    ChatFailure,
    ChatMessage,
    ChatPassed,
    ChatStreamEnd,
    ChatStreamStart,
    ChatStreamText,
)
from voicethere.wire.sem import TimelineUpsert, decode_frame, whole_number

NOW = 1_750_000_000_000
IDS = st.sampled_from(["s-1", "s-2", "u-1", "e-1"])
TEXTS = st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
PROPS = st.dictionaries(
    st.sampled_from(["role", "content", "streaming", "consumedAt"]),
    st.sampled_from(["user", "assistant", "", "text", True, False, None]),
    max_size=3,
)
UPSERTS = st.fixed_dictionaries(
    {"id": IDS, "kind": st.sampled_from(["message", "note", "error"]), "props": PROPS},
    optional={"createdAtMs": st.integers(-5, NOW), "meta": st.dictionaries(TEXTS, TEXTS, max_size=1)},
).map(lambda entity: {"entity": entity})
EVENTS = st.one_of(
    st.tuples(st.just("timeline.upsert"), UPSERTS),
    st.tuples(
        st.sampled_from(
            ["llm.start", "llm.delta", "llm.final", "llm.thinking.start", "llm.thinking.final", "x"]
        ),
        st.fixed_dictionaries({"id": IDS}),
    ),
    st.tuples(st.just("session.error"), JSON),
)
FRAMES = st.tuples(EVENTS, IDS).map(
    lambda found: {"sem": True, "event": {"type": found[0][0], "data": found[0][1], "id": found[1]}}
)
BODIES: st.SearchStrategy[ChatBody] = st.one_of(
    st.builds(ChatMessage, speech_id=IDS, text=TEXTS),
    st.builds(ChatStreamStart, speech_id=IDS),
    st.builds(ChatStreamText, speech_id=IDS, delta=TEXTS, cumulative=TEXTS),
    st.builds(ChatStreamEnd, speech_id=IDS, text=TEXTS, complete=st.booleans()),
    st.builds(ChatPassed, payload=(FRAMES | JSON).map(json.dumps)),
    st.builds(
        ChatFailure,
        error_id=st.sampled_from(["e-1", "e-2"]),
        envelope=st.builds(
            SessionErrorEnvelope,
            code=st.just("AGENT_CHILD_CRASHED"),
            message=TEXTS,
            session_id=st.just("s"),
            recoverable=st.just(True),
        ),
    ),
)


class Keeper:
    """Keeps a conversation as the store does, and hears its frames as a client does."""

    def __init__(self) -> None:
        self.state = ConversationState(session_id="s", session_open=True)
        self.entities: dict[str, StoredEntity] = {}
        self.frames: list[bytes] = []

    def output(self, body: ChatBody, output: int, now_ms: int) -> Skipped | None:
        place = placed(self.state, "s", output)
        if isinstance(place, Skipped):
            return place
        composed = compose(body, now_ms)
        self._take(composed, advance(place, self.entities, composed, "s"))
        return None

    def prompt(self, name: str, now_ms: int) -> None:
        composed = compose_prompt(name, name, now_ms)
        self._take(composed, advance(self.state, self.entities, composed, None))

    def _take(self, composed: Composed, advanced: Advanced) -> None:
        assert advanced.state.version >= self.state.version
        frames = number("c", composed, advanced.applied)
        assert advanced.state.seq == self.state.seq + len(frames)
        self.state = advanced.state
        self.entities.update(advanced.entities)
        self.frames += frames


class Client:
    """The timeline and the running streams of whoever hears every frame."""

    def __init__(self, frames: list[bytes]) -> None:
        self.timeline: dict[str, TimelineEntity] = {}
        self.streams: set[str] = set()
        self.versions: list[int] = []
        for frame in frames:
            event = decode_frame(frame)
            assert event is not None
            if isinstance(event.data, TimelineUpsert):
                self._upsert(event.data)
            elif event.type.endswith((".start", ".delta")):
                self.streams.add(event.id)
            elif event.type.startswith("llm."):
                self.streams.discard(event.id)
            elif event.type == "session.error":
                assert self.streams == set()

    def _upsert(self, upsert: TimelineUpsert) -> None:
        version = whole_number(upsert.version)
        self.versions.append(version)
        incoming = entity_of(upsert.entity, version)
        known = self.timeline.get(incoming.id)
        self.timeline[incoming.id] = found = incoming if known is None else merge(known, incoming)
        if found.kind == "message" and not found.is_of_user:
            if found.props.get("streaming") is True:
                self.streams.add(found.id)
            else:
                self.streams.discard(found.id)


def shown(entity: StoredEntity) -> dict[str, Any]:
    return {
        "kind": entity.kind,
        "created_at": entity.created_at_ms,
        "version": entity.version,
        "props": entity.props,
    }


@pytest.mark.states("sem-chat/gateway/seq", "sem-chat/version/one-counter")
@given(st.lists(BODIES, max_size=12), st.sets(st.integers(0, 12)))
def test_what_clients_saw_is_what_is_kept(bodies: list[ChatBody], prompts: set[int]) -> None:
    keeper = Keeper()
    for index, body in enumerate(bodies):
        if index in prompts:
            keeper.prompt(f"prompt-{index}", NOW + index)
        assert keeper.output(body, index + 1, NOW + index) is None
    client = Client(keeper.frames)
    sequence = [msgspec.json.decode(frame)["event"]["seq"] for frame in keeper.frames]
    assert sequence == list(range(1, keeper.state.seq + 1))
    assert client.versions == sorted(set(client.versions))
    assert keeper.state.version == max(client.versions, default=0)
    kept = sorted(keeper.entities.values(), key=lambda entity: entity.position)
    assert [entity.id for entity in kept] == list(client.timeline)
    assert [entity.position for entity in kept] == list(range(1, len(kept) + 1))
    for entity in kept:
        seen = client.timeline[entity.id]
        known = {
            "kind": seen.kind,
            "created_at": seen.created_at,
            "version": seen.version,
            "props": seen.props,
        }
        assert known == shown(entity)
    assert {stream.id for stream in keeper.state.streams} == client.streams
    assert keeper.output(ChatClosed(end_reason=EndReason.ERROR), len(bodies) + 1, NOW + 99) is None
    assert Client(keeper.frames).streams == set()
    assert keeper.state.streams == ()
    assert not keeper.state.session_open


@given(st.lists(BODIES, min_size=1, max_size=8), st.data())
def test_outputs_that_are_said_again_and_out_of_order_count_once(
    bodies: list[ChatBody], data: st.DataObject
) -> None:
    once, often = Keeper(), Keeper()
    for index, body in enumerate(bodies):
        once.output(body, index + 1, NOW)
    said = data.draw(st.lists(st.integers(1, len(bodies)), max_size=20))
    for output in [*said, *range(1, len(bodies) + 1), *said]:
        before = often.state
        skipped = often.output(bodies[output - 1], output, NOW)
        if skipped is not None:
            assert skipped.applied_up_to == before.outputs != output - 1
            assert often.state is before
    assert (often.state, often.entities, often.frames) == (once.state, once.entities, once.frames)


@pytest.mark.states("sem-chat/text/end-on-reconnect")
@given(st.lists(BODIES, max_size=10), st.integers(0, 30))
def test_no_stream_stays_open_on_a_client_that_was_away(bodies: list[ChatBody], heard: int) -> None:
    """It hears the first frames, then nothing until it is told how the conversation stands."""
    keeper = Keeper()
    for index, body in enumerate(bodies):
        keeper.output(body, index + 1, NOW + index)
    entities = sorted(keeper.entities.values(), key=lambda entity: entity.position)
    back = Client([*keeper.frames[:heard], *resend("c", entities, keeper.state.finished)])
    assert back.streams <= {stream.id for stream in keeper.state.streams}


@given(st.lists(st.integers(0, 90), max_size=120))
def test_open_streams_are_bounded(ids: list[int]) -> None:
    keeper = Keeper()
    for index, stream in enumerate(ids):
        keeper.output(ChatStreamStart(speech_id=f"r{stream}"), index + 1, NOW)
        assert len(keeper.state.streams) <= 64
