"""What a gateway's entities and snapshots do to timeline and streams of a conversation (sem-chat.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.chat.sem_conversation import Conversation, message
from voicethere.chat import ChatErrorKind, ChatErrorStage, TimelineEntity, selectors


@pytest.fixture
def conversation() -> Conversation:
    return Conversation()


def content(conversation: Conversation, id: str = "m1") -> Any:
    entity = conversation.entity(id)
    return None if entity is None else entity.props.get("content")


@pytest.mark.states("sem-chat/event/timeline-upsert", "sem-chat/version/newer", "sem-chat/version/older")
def test_an_upsert_merges_the_entity_by_its_version(conversation: Conversation) -> None:
    """sem-chat: "`timeline.upsert`: the entity is merged"."""
    conversation.upsert(version=2, content="two", extra=1)
    conversation.upsert(version=1, content="one")
    conversation.upsert(version=3, content="three")
    assert conversation.entities == (
        TimelineEntity("m1", "message", 5, None, 3, {"role": "assistant", "content": "three", "extra": 1}),
    )


def test_an_upsert_of_another_kind_passes_through(conversation: Conversation) -> None:
    entity = {"id": "t", "kind": "tool_call", "createdAtMs": "7", "props": {"a": None}, "meta": {"k": "v"}}
    conversation.hear("timeline.upsert", "x", {"version": "9", "entity": entity})
    assert conversation.entity("t") == TimelineEntity("t", "tool_call", 7, None, 9, {"a": None})
    assert not conversation.streams


@pytest.mark.states(
    "sem-chat/text/message-starts-stream", "sem-chat/text/message-ends-stream", "sem-chat/text/one-id"
)
@pytest.mark.parametrize("role", ["assistant", "thinking", "system", None, 7])
def test_a_message_that_is_not_the_users_starts_and_ends_its_stream(
    conversation: Conversation, role: Any
) -> None:
    """sem-chat: "A message entity of any role but `user` also starts … or ends the stream of its id"."""
    conversation.upsert(version=1, role=role, content="a", streaming=True)
    assert conversation.context.streams.running == ("m1",)
    conversation.hear("llm.delta", "m1", {"delta": "b"})
    assert conversation.context.streams.running == ("m1",)
    conversation.upsert(version=2, role=role, content="ab", streaming=False)
    assert not conversation.streams


@pytest.mark.parametrize("streaming", [None, "true", 1, False])
def test_only_true_is_streaming(conversation: Conversation, streaming: Any) -> None:
    conversation.hear("llm.start")
    conversation.upsert(content="x", streaming=streaming)
    assert not conversation.streams


@pytest.mark.states("sem-chat/text/users-message")
def test_the_users_message_moves_no_stream(conversation: Conversation) -> None:
    conversation.hear("llm.start", "m1")
    conversation.upsert("m1", role="user", content="x", streaming=False)
    conversation.upsert("m2", role="user", content="x", streaming=True)
    assert conversation.context.streams.running == ("m1",)


def test_an_outdated_upsert_moves_no_stream(conversation: Conversation) -> None:
    conversation.upsert(version=5, content="done", streaming=False)
    conversation.upsert(version=4, content="do", streaming=True)
    assert not conversation.streams
    conversation.upsert("m2", version=7, content="do", streaming=True)
    conversation.upsert("m2", version=6, content="", streaming=False)
    assert conversation.streams


def test_an_upsert_that_does_not_say_whether_it_streams_changes_nothing_of_that(
    conversation: Conversation,
) -> None:
    conversation.upsert(version=1, content="a", streaming=True)
    conversation.upsert(version=2, content="ab")
    assert conversation.streams


@pytest.mark.states("sem-chat/text/without-text")
@pytest.mark.parametrize("text", ["", "  \n", None, 7])
@pytest.mark.parametrize("streaming", [True, False])
def test_a_message_without_text_is_not_shown(conversation: Conversation, text: Any, streaming: bool) -> None:
    """sem-chat: "A message upsert without text is not shown unless … showed text before"."""
    conversation.upsert(version=1, content=text, streaming=streaming)
    assert conversation.entities == ()
    assert conversation.streams is streaming  # what it says of the stream counts all the same
    conversation.upsert(version=2, content="text", streaming=streaming)
    assert content(conversation) == "text"


@pytest.mark.states("sem-chat/text/known-text-stays")
def test_the_known_text_stays_also_in_the_final_upsert(conversation: Conversation) -> None:
    """sem-chat: "then the known text stays, also in the final upsert"."""
    conversation.upsert(version=1, content="hel", streaming=True)
    conversation.upsert(version=2, content="", streaming=True, model="m")
    assert content(conversation) == "hel"
    conversation.upsert(version=3, content="", streaming=False)
    entity = conversation.entity("m1")
    assert entity is not None
    assert entity.props == {"role": "assistant", "content": "hel", "streaming": False, "model": "m"}
    assert entity.version == 3
    assert not conversation.streams


@pytest.mark.states("sem-chat/entity/consumed-null", "sem-chat/entity/null")
def test_suggestions_whose_consumed_at_becomes_null_are_shown_again(conversation: Conversation) -> None:
    """sem-chat: "a suggestions entity is shown again when `consumedAt` is null"."""

    def report(version: int, **props: Any) -> tuple[str, ...]:
        entity = {
            "id": "s",
            "kind": "suggestions",
            "props": {"items": ["yes"], "source": "assistant", **props},
        }
        conversation.hear("timeline.upsert", "s", {"version": version, "entity": entity})
        return selectors.select_suggestions(conversation.store.state, "c")

    assert report(1) == ("yes",)
    assert report(2, consumedAt=70) == ()
    assert report(3) == ()  # what is not named stays as it was
    assert report(4, consumedAt=None) == ("yes",)


def test_an_empty_message_does_not_take_the_place_of_another_kind(conversation: Conversation) -> None:
    entity = {"id": "m1", "kind": "tool_call", "props": {"a": 1}}
    conversation.hear("timeline.upsert", data={"version": 1, "entity": entity})
    conversation.upsert(version=2, content="")
    assert [entity.kind for entity in conversation.entities] == ["tool_call"]


@pytest.mark.states("sem-chat/event/log")
def test_a_log_event_adds_an_entity_that_is_left_alone_then(conversation: Conversation) -> None:
    """sem-chat: "a `log` entity named by `event.id` is added (a known id is left alone)"."""
    conversation.hear("log", "l1", {"level": "warn", "message": "one", "fields": {"a": 1}})
    conversation.hear("log", "l1", {"level": "info", "message": "two"})
    assert conversation.entities == (
        TimelineEntity("l1", "log", 1_000_000, props={"level": "warn", "message": "one", "fields": {"a": 1}}),
    )


@pytest.mark.states("sem-chat/event/agent-mode")
def test_an_agent_mode_event_is_an_entity(conversation: Conversation) -> None:
    """sem-chat: "an `agent_mode` entity named by `event.id`"."""
    conversation.hear("agent.mode", "a1", {"title": "one", "data": {"x": 1}})
    conversation.clock.advance(1)
    conversation.hear("agent.mode", "a1", {"title": "two", "data": {"x": None}})
    assert conversation.entities == (
        TimelineEntity("a1", "agent_mode", 1_000_000, props={"title": "two", "data": {"x": None}}),
    )


@pytest.mark.states("sem-chat/event/debugger-pause")
def test_a_debugger_pause_event_is_an_entity(conversation: Conversation) -> None:
    """sem-chat: "a `debugger_pause` entity named by `event.id`"."""
    data = {"pauseId": "p", "phase": "before", "summary": "s", "deadlineMs": "1700", "extra": {"y": []}}
    conversation.hear("debugger.pause", "d1", data)
    assert conversation.entities == (
        TimelineEntity("d1", "debugger_pause", 1_000_000, props={**data, "deadlineMs": 1700}),
    )


@pytest.mark.states("sem-chat/text/snapshot-as-is", "sem-chat/version/snapshot")
def test_a_snapshot_is_taken_as_it_is(conversation: Conversation) -> None:
    """sem-chat: "A snapshot is taken as it is": its entities take its version, an empty message stays."""
    conversation.upsert("old", version=3, content="gone")
    empty = {"id": "m1", "kind": "message", "createdAtMs": 3, "props": {"role": "assistant", "content": ""}}
    assert conversation.snapshot(7, empty, {"id": "t", "kind": "tool", "updatedAtMs": 4}) == (2, 0)
    assert conversation.entities == (
        TimelineEntity("m1", "message", 3, None, 7, {"role": "assistant", "content": ""}),
        TimelineEntity("t", "tool", 0, 4, 7, {}),
    )


def test_a_snapshot_shows_which_streams_run_and_which_have_ended(conversation: Conversation) -> None:
    conversation.hear("llm.start", "m1")
    conversation.hear("llm.thinking.start", "elsewhere")
    conversation.snapshot(
        7,
        message("m1", content="done", streaming=False)["entity"],
        message("m2", content="", streaming=True)["entity"],
        message("u1", content="x", streaming=True, role="user")["entity"],
    )
    assert conversation.context.streams.running == ("elsewhere", "m2")
    assert conversation.streams


@pytest.mark.states("sem-chat/entity/reader-skips", "sem-chat/entity/reader-records")
@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "message"},
        {"id": "x" * 2_000, "kind": "message"},
        {"id": "x", "kind": "k" * 2_000},
        {"id": "x", "kind": "k", "createdAtMs": 2**62},
        {"id": "x", "kind": "k", "props": {"n": 2**80}},
        {"id": "x", "kind": "k", "props": {"a": json.loads("[" * 80 + "]" * 80)}},
    ],
    ids=range(6),
)
def test_a_bad_entity_of_a_snapshot_is_left_out_and_recorded(conversation: Conversation, bad: Any) -> None:
    """sem-chat: "our reader skips the bad entity … and records it"."""
    good = {"id": "e", "kind": "message", "props": {"role": "user", "content": "x"}}
    assert conversation.snapshot(7, good, bad) == (1, 1)
    assert [entity.id for entity in conversation.entities] == ["e"]
    error = conversation.error
    assert error is not None
    assert (error.kind, error.stage) == (ChatErrorKind.HYDRATE_ERROR, ChatErrorStage.HYDRATE)
    assert error.message == "1 of the snapshot's 2 entities could not be read"
    assert error.details is not None
    assert (error.details["refused"], len(error.details["problems"])) == (1, 1)
    assert error.recoverable


@pytest.mark.parametrize(
    ("type", "id", "data"),
    [
        ("timeline.upsert", "m1", {"entity": {"id": "x" * 2_000, "kind": "k"}}),
        ("timeline.upsert", "m1", {"entity": {"id": "x", "kind": "k", "updatedAtMs": str(2**62)}}),
        ("log", "", {"message": "m"}),
        ("agent.mode", "x" * 2_000, {}),
        ("debugger.pause", "d", {"deadlineMs": "9" * 19}),
        ("log", "l", {"fields": {"n": 2**80}}),
    ],
    ids=range(6),
)
def test_an_event_out_of_bounds_is_a_decode_error(
    conversation: Conversation, type: str, id: str, data: Any
) -> None:
    conversation.hear(type, id, data)
    assert conversation.entities == ()
    assert conversation.error is not None
    assert conversation.error.kind is ChatErrorKind.SEM_DECODE_ERROR
    assert conversation.error.stage is ChatErrorStage.STREAM
    assert len(conversation.history) == 1
