"""`session.error` events as records, and errors mirrored into the timeline."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.chat.sem_conversation import Conversation
from voicethere.chat import ChatErrorKind, ChatErrorStage, TimelineEntity, actions
from voicethere.core.chat.mirror import mirror_errors
from voicethere.errors.chat_codes import CHAT_STAGES
from voicethere.errors.codes import SessionErrorCode

ENVELOPE: dict[str, Any] = {
    "type": "session_error",
    "code": "AGENT_HANDLER_FAILED",
    "message": "Sorry, something went wrong.",
    "session_id": "s1",
    "project_id": "p1",
    "stack": "Traceback …",
    "recoverable": False,
    "customer_context": {"order": 7},
    "occurred_at": "2026-06-19T12:00:00.000Z",
}


@pytest.fixture
def conversation() -> Conversation:
    return Conversation()


@pytest.mark.states(
    "sem-chat/event/session-error",
    "chat-state/producers/session-error",
    "chat-state/producers/session-error/stage",
    "chat-state/producers/session-error/code",
    "chat-state/producers/session-error/recoverable",
    "chat-state/producers/session-error/details",
)
@pytest.mark.parametrize("code", list(SessionErrorCode))
@pytest.mark.parametrize("recoverable", [True, False])
def test_a_session_error_is_a_record(
    conversation: Conversation, code: SessionErrorCode, recoverable: bool
) -> None:
    """chat-state: "`code` is the session error code, `recoverable` the envelope's, …"."""
    envelope = {**ENVELOPE, "code": code.value, "recoverable": recoverable}
    conversation.hear("session.error", "row-1", envelope)
    (record,) = conversation.history
    assert conversation.error is record
    assert (record.id, record.kind) == ("row-1", ChatErrorKind.RUNTIME_ERROR)
    assert record.stage is ChatErrorStage(CHAT_STAGES[code])
    assert (record.code, record.message) == (code.value, ENVELOPE["message"])
    assert record.recoverable is recoverable
    assert record.details == envelope
    assert (record.source, record.at) == ("session.error", 1_000_000)


def test_a_code_that_this_version_does_not_know_is_passed_on(conversation: Conversation) -> None:
    conversation.hear("session.error", "row-1", {**ENVELOPE, "code": "NEW_CODE", "message": " "})
    assert conversation.error is not None
    assert (conversation.error.code, conversation.error.stage) == ("NEW_CODE", ChatErrorStage.UNKNOWN)
    assert conversation.error.message == "runtime error (unknown)"


@pytest.mark.states("seed-2/problem/order/replay")
def test_the_same_error_told_again_is_left_alone(conversation: Conversation) -> None:
    conversation.hear("session.error", "row-1", ENVELOPE)
    conversation.clock.advance(60)
    conversation.store.dispatch(actions.clear_error("c"))
    before = conversation.store.state
    conversation.hear("session.error", "row-1", ENVELOPE)
    assert conversation.store.state is before


@pytest.mark.parametrize("id", ["same", "", "x" * 2_000])
def test_a_gateway_that_names_all_errors_alike_has_each_recorded(conversation: Conversation, id: str) -> None:
    without_time = {name: value for name, value in ENVELOPE.items() if name != "occurred_at"}
    for data in (
        ENVELOPE,
        {**ENVELOPE, "occurred_at": "2026-06-19T12:01:00.000Z"},
        without_time,
        without_time,
        {**ENVELOPE, "code": "RUNNER_INTERNAL"},
    ):
        conversation.clock.advance(60)
        conversation.hear("session.error", id, data)
    assert len(conversation.history) == 5
    assert len({record.id for record in conversation.history}) == 5


def test_a_large_envelope_is_bounded(conversation: Conversation) -> None:
    conversation.hear("session.error", "row-1", {**ENVELOPE, "stack": "x" * 200_000, "message": "y" * 9_000})
    assert conversation.error is not None
    assert len(conversation.error.message) == 2_048
    assert len(str(conversation.error.details)) < 20_000


@pytest.mark.states("chat-state/mirror", "chat-state/mirror/off", "seed-2/questions/mirror")
def test_errors_are_not_in_the_timeline_unless_asked_for(conversation: Conversation) -> None:
    """chat-state: "mirroring errors into the timeline is an option of the client, off by default"."""
    conversation.hear("session.error", "row-1", ENVELOPE)
    assert conversation.entities == ()
    stop = mirror_errors(conversation.store)
    conversation.clock.advance(60)
    conversation.hear("session.error", "row-3", {**ENVELOPE, "occurred_at": "2026-06-19T12:01:00.000Z"})
    conversation.store.dispatch(actions.push_error("c", kind="http_error", stage="send", status=500, id="e4"))
    assert [(entity.id, entity.kind) for entity in conversation.entities] == [
        ("row-3", "error"),
        ("e4", "error"),
    ]
    assert conversation.entities[0] == TimelineEntity(
        "row-3",
        "error",
        1_060_000,
        props={
            "message": ENVELOPE["message"],
            "code": "AGENT_HANDLER_FAILED",
            "kind": "runtime_error",
            "stage": "stream",
            "recoverable": False,
        },
    )
    conversation.store.dispatch(actions.push_error("c", kind="http_error", stage="send", status=500, id="e5"))
    assert len(conversation.entities) == 2  # a repeat
    stop()
    conversation.store.dispatch(actions.push_error("c", kind="ws_error", stage="stream"))
    assert len(conversation.entities) == 2


@pytest.mark.states("sem-chat/gateway/mirror-once")
@pytest.mark.parametrize("first", ["frame", "entity"])
def test_a_client_that_mirrors_does_not_show_the_gateways_entity_twice(
    conversation: Conversation, first: str
) -> None:
    """sem-chat: "so that a client which mirrors errors itself does not show it twice"."""
    mirror_errors(conversation.store)
    entity = {"id": "row-1", "kind": "error", "createdAtMs": 9, "props": {"code": "AGENT_HANDLER_FAILED"}}
    steps = [
        ("session.error", "row-1", ENVELOPE),
        ("timeline.upsert", "row-1", {"version": 4, "entity": entity}),
    ]
    for step in steps if first == "frame" else reversed(steps):
        conversation.hear(*step)
    (shown,) = conversation.entities
    assert (shown.id, shown.kind, shown.version) == ("row-1", "error", 4)
    assert shown.props["code"] == "AGENT_HANDLER_FAILED"
