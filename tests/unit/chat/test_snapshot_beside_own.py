"""What a client made itself is still there, in its place, after a snapshot that cannot know of it."""

from __future__ import annotations

import pytest

from tests.unit.chat.sem_conversation import Conversation, message
from voicethere.chat import TimelineEntity, actions, selectors
from voicethere.core.chat.mirror import mirror_errors


@pytest.fixture
def conversation() -> Conversation:
    return Conversation()


def entities(*ids: str) -> list[object]:
    return [message(id, content=id)["entity"] for id in ids]


def ids(conversation: Conversation) -> list[str]:
    return [entity.id for entity in conversation.entities]


@pytest.mark.states("chat-state/mirror")
def test_a_mirrored_error_outlives_the_reconnect_that_follows_it(conversation: Conversation) -> None:
    mirror_errors(conversation.store)
    conversation.snapshot(1, *entities("m1"))
    conversation.store.dispatch(
        actions.push_error("c", kind="ws_close", stage="disconnect", message="lost", id="e1")
    )
    conversation.snapshot(3, *entities("m1", "m2"))
    assert ids(conversation) == ["m1", "e1", "m2"]
    conversation.snapshot(4, *entities("m1", "m2", "m3"))
    assert ids(conversation) == ["m1", "e1", "m2", "m3"]


def test_starters_outlive_the_first_snapshot(conversation: Conversation) -> None:
    conversation.store.dispatch(
        actions.upsert_suggestions("c", entity_id="starters", source="starter", suggestions=["Hello"])
    )
    conversation.snapshot(0)
    assert selectors.select_suggestions(conversation.store.state, "c") == ("Hello",)
    conversation.snapshot(1, *entities("m1"))
    assert selectors.select_suggestions(conversation.store.state, "c") == ()
    assert ids(conversation) == ["starters", "m1"]


@pytest.mark.states("sem-chat/event/log")
def test_log_lines_stay_between_the_messages_that_they_came_between(conversation: Conversation) -> None:
    conversation.upsert("m1", 1, content="m1")
    for id in ("l1", "l2"):
        conversation.hear("log", id, {"message": "x"})
    conversation.upsert("m2", 2, content="m2")
    conversation.hear("log", "l3", {"message": "y"})
    conversation.snapshot(2, *entities("m1", "m2"))
    assert ids(conversation) == ["m1", "l1", "l2", "m2", "l3"]


def test_what_the_gateway_had_and_has_no_more_goes_and_its_own_report_wins(
    conversation: Conversation,
) -> None:
    conversation.upsert("m1", 1, content="m1")
    conversation.upsert("m2", 2, content="m2")
    conversation.store.dispatch(
        actions.upsert_entity("c", TimelineEntity("m3", "message", 1, props={"role": "user", "draft": True}))
    )
    conversation.snapshot(3, *entities("m3", "m1"))
    assert ids(conversation) == ["m3", "m1"]
    assert conversation.entities[0] == TimelineEntity(
        "m3", "message", 5, version=3, props={"role": "assistant", "content": "m3"}
    )
