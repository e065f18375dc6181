"""The registry of SEM handlers: the defaults, others in their place, and handlers that raise."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.unit.chat.sem_conversation import Conversation, event
from voicethere.chat import ChatErrorKind, ChatErrorStage, SemContext, SemEvent, SemRegistry, actions
from voicethere.wire.sem import EVENT_DATA, UndecodableSem


def test_every_event_that_is_read_has_a_default_handler() -> None:
    assert SemRegistry().types == set(EVENT_DATA)
    assert SemRegistry.empty().types == frozenset()


@pytest.mark.states("sem-chat/event/other", "sem-chat/event/registered")
def test_anything_else_is_ignored_unless_a_handler_was_registered() -> None:
    """sem-chat: "anything else: ignored, unless a handler was registered"."""
    conversation = Conversation()
    before = conversation.store.state
    assert conversation.hear("agent.message", data={"any": 1}) is False
    assert conversation.store.state is before
    heard: list[Any] = []
    assert conversation.registry.register("agent.message", lambda _, event: heard.append(event.data)) is None
    assert conversation.hear("agent.message", data={"any": 1}) is True
    assert heard == [{"any": 1}]


def test_a_handler_is_replaced_and_may_call_the_one_before() -> None:
    conversation = Conversation()
    heard: list[str] = []

    def noting(context: SemContext, event: SemEvent) -> None:
        heard.append(f"{context.conv_id} {event.id}")
        assert before is not None
        before(context, event)

    before = conversation.registry.register("llm.start", noting)
    assert before is not None
    assert conversation.hear("llm.start", "m1")
    assert heard == ["c m1"]
    assert conversation.streams
    assert conversation.registry.register("llm.start", before) is noting
    assert conversation.registry.unregister("llm.start") is before
    assert conversation.registry.unregister("llm.start") is None
    assert conversation.hear("llm.start", "m2") is False


def test_registries_are_independent() -> None:
    one, other = SemRegistry(), SemRegistry()
    one.unregister("log")
    assert "log" in other.types
    assert "log" in SemRegistry().types


async def _asynchronous(context: SemContext, event: SemEvent) -> None: ...


class _Asynchronous:
    async def __call__(self, context: SemContext, event: SemEvent) -> None: ...


@pytest.mark.parametrize(
    ("type", "handler", "refusal"),
    [
        (7, print, "the event type must be a string, not int"),
        ("", print, "the event type must not be empty"),
        ("x", None, "the handler of 'x' must be callable, not NoneType"),
        ("x", _asynchronous, "the handler of 'x' must be a plain function"),
        ("x", _Asynchronous(), "the handler of 'x' must be a plain function"),
        ("x", functools.partial(_asynchronous), "the handler of 'x' must be a plain function"),
    ],
    ids=range(6),
)
def test_what_is_no_handler_is_refused_where_it_is_registered(type: Any, handler: Any, refusal: str) -> None:
    with pytest.raises((TypeError, ValueError), match=refusal):
        SemRegistry().register(type, handler)


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error", [ValueError("what went wrong"), _Unspeakable(), RecursionError(), KeyError("x" * 5_000)]
)
def test_a_handler_that_raises_becomes_a_record_and_the_conversation_goes_on(error: Exception) -> None:
    conversation = Conversation()

    def failing(context: SemContext, event: SemEvent) -> None:
        context.store.dispatch(actions.set_model_name(context.conv_id, "half done"))
        raise error

    conversation.registry.register("agent.message", failing)
    assert conversation.hear("agent.message", "id-7") is True
    record = conversation.error
    assert record is not None
    assert (record.kind, record.stage) == (ChatErrorKind.RUNTIME_ERROR, ChatErrorStage.STREAM)
    assert record.source is not None
    assert record.source.startswith(f"{__name__}.")
    assert "failing" in record.source
    assert record.message.startswith("handling 'agent.message' failed: ")
    assert type(error).__name__ in record.message
    assert len(record.message) <= 2_048
    assert record.details is not None
    assert (record.details["event_type"], record.details["event_id"]) == ("agent.message", "id-7")
    conversation.hear("llm.start")
    assert conversation.streams


def test_a_handler_that_says_that_it_cannot_read_an_event_is_believed() -> None:
    conversation = Conversation()

    def unreadable(context: SemContext, event: SemEvent) -> None:
        raise UndecodableSem("the data has no legs")

    conversation.registry.register("x", unreadable)
    conversation.hear("x")
    assert conversation.error is not None
    assert conversation.error.kind is ChatErrorKind.SEM_DECODE_ERROR
    assert conversation.error.message == "the data has no legs"


def test_what_ends_the_program_is_not_recorded() -> None:
    conversation = Conversation()

    def leaving(context: SemContext, event: SemEvent) -> None:
        raise KeyboardInterrupt

    conversation.registry.register("x", leaving)
    with pytest.raises(KeyboardInterrupt):
        conversation.hear("x")
    assert conversation.history == ()


def test_an_event_that_was_made_by_hand_with_wrong_data_is_a_record_too() -> None:
    conversation = Conversation()
    for type in EVENT_DATA:
        conversation.clock.advance(10)
        conversation.registry.apply(conversation.context, SemEvent(type=type, id="x", data="no data"))
    failed = {(record.details or {})["event_type"] for record in conversation.history}
    assert {"timeline.upsert", "log", "agent.mode", "debugger.pause", "session.error"} <= failed


def test_many_conversations_share_one_registry() -> None:
    one = Conversation()
    other = SemContext("d", one.store)
    one.registry.apply(other, event("llm.start"))
    assert not one.streams
    assert one.store.state.chat_session["d"].is_streaming
