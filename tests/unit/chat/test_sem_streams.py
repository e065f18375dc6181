"""What `llm.*` events do to a conversation: streams, tokens, statistics, totals (sem-chat.md)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.chat.sem_conversation import Conversation, event
from voicethere.chat import actions, selectors
from voicethere.core.chat.state import TurnStats
from voicethere.core.chat.stream_effects import end_streams
from voicethere.core.chat.streams import MAX_REPORTS, MAX_RUNNING

USAGE = {
    "inputTokens": 10,
    "outputTokens": 30,
    "cachedTokens": 4,
    "cacheCreationInputTokens": 2,
    "cacheReadInputTokens": 1,
}


@pytest.fixture
def conversation() -> Conversation:
    return Conversation()


@pytest.mark.states("sem-chat/event/llm-start")
@pytest.mark.parametrize("type", ["llm.start", "llm.thinking.start"])
def test_a_start_starts_the_stream_of_its_id(conversation: Conversation, type: str) -> None:
    """sem-chat: "`llm.start`, `llm.thinking.start`: the stream `event.id` starts"."""
    conversation.store.dispatch(actions.push_error("c", kind="ws_error", stage="stream"))
    conversation.store.dispatch(actions.update_stream_tokens("c", 9))
    conversation.hear(type, "m1", {"id": "other", "role": "assistant"})
    assert conversation.streams
    assert conversation.context.streams.running == ("m1",)
    assert selectors.select_stream_start_time(conversation.store.state, "c") == 1_000_000
    assert (conversation.tokens, conversation.error) == (0, None)
    assert len(conversation.history) == 1


def test_a_start_of_a_stream_that_runs_changes_nothing(conversation: Conversation) -> None:
    conversation.hear("llm.start")
    conversation.hear("llm.delta", data={"delta": "abcdefgh"}, metadata={})
    before = conversation.store.state
    conversation.clock.advance(1)
    conversation.hear("llm.start")
    assert conversation.store.state is before


@pytest.mark.states("sem-chat/event/llm-delta")
@pytest.mark.parametrize("type", ["llm.delta", "llm.thinking.delta"])
def test_a_delta_goes_on_with_a_stream_or_starts_it(conversation: Conversation, type: str) -> None:
    """sem-chat: "the stream goes on (starts, if it was not running)"."""
    conversation.hear(type, "m1", {"delta": "a", "cumulative": "a"})
    assert conversation.streams
    started = selectors.select_stream_start_time(conversation.store.state, "c")
    conversation.clock.advance(5)
    conversation.hear(type, "m1", {"delta": "b", "cumulative": "ab"})
    assert conversation.context.streams.running == ("m1",)
    assert selectors.select_stream_start_time(conversation.store.state, "c") == started


@pytest.mark.states(
    "sem-chat/event/llm-final",
    "sem-chat/metadata/usage",
    "sem-chat/metadata/duration",
    "sem-chat/metadata/tokens-per-second",
)
@pytest.mark.parametrize("type", ["llm.final", "llm.thinking.summary"])
def test_a_final_ends_the_stream_and_sets_the_statistics(conversation: Conversation, type: str) -> None:
    """sem-chat: "the stream ends; turn statistics are set … tokens per second to one decimal"."""
    conversation.hear("llm.start")
    conversation.hear(type, data={"text": "hello"}, metadata={"usage": USAGE, "durationMs": 1_400})
    assert not conversation.streams
    assert conversation.stats == TurnStats(
        input_tokens=10,
        output_tokens=30,
        cached_tokens=4,
        cache_creation_input_tokens=2,
        cache_read_input_tokens=1,
        duration_ms=1_400,
        tokens_per_second=21.4,
    )


@pytest.mark.states("sem-chat/event/llm-thinking-final")
def test_the_end_of_thinking_ends_the_stream_alone(conversation: Conversation) -> None:
    """sem-chat: "`llm.thinking.final`: the stream ends"."""
    conversation.hear("llm.thinking.start", "t")
    conversation.hear("llm.thinking.final", "t", {"id": "t"}, metadata={"model": "m", "usage": USAGE})
    assert not conversation.streams
    assert (conversation.stats, conversation.total, conversation.model) == (None, 0, "m")


@pytest.mark.states("sem-chat/text/streams-while-any")
def test_a_conversation_streams_while_any_of_its_streams_runs(conversation: Conversation) -> None:
    """sem-chat: "A conversation streams while any of its streams runs"."""
    conversation.hear("llm.thinking.start", "t")
    conversation.hear("llm.start", "m1")
    conversation.upsert("m2", content="x", streaming=True)
    for end, id in [("llm.thinking.final", "t"), ("llm.final", "m1"), ("llm.final", "nobody")]:
        conversation.hear(end, id, {})
        assert conversation.streams
    conversation.upsert("m2", content="x", streaming=False)
    assert not conversation.streams


@pytest.mark.states("sem-chat/text/upsert-alone")
def test_llm_events_show_no_text(conversation: Conversation) -> None:
    """sem-chat: "Text is shown by `timeline.upsert` alone"."""
    for type in ("llm.start", "llm.delta", "llm.final", "llm.thinking.delta", "llm.thinking.summary"):
        conversation.hear(type, data={"delta": "text", "cumulative": "text", "text": "text"})
    assert conversation.entities == ()


@pytest.mark.states("sem-chat/metadata/model")
@pytest.mark.parametrize(
    "type", ["llm.start", "llm.delta", "llm.final", "llm.thinking.start", "llm.thinking.final"]
)
def test_the_model_is_named_by_any_llm_event(conversation: Conversation, type: str) -> None:
    """sem-chat: "`event.metadata` on `llm.*`: … the model name"."""
    conversation.hear(type, metadata={"model": " model-7 "})
    assert conversation.model == "model-7"
    conversation.hear(type, metadata={"usage": USAGE})
    assert conversation.model == "model-7"


@pytest.mark.states("sem-chat/metadata/estimated-tokens")
@pytest.mark.parametrize(
    ("chars", "tokens"), [(0, 1), (1, 1), (4, 1), (5, 1), (6, 2), (10, 3), (14, 4), (18, 5), (400, 100)]
)
def test_stream_tokens_are_estimated_from_characters(
    conversation: Conversation, chars: int, tokens: int
) -> None:
    """sem-chat: "stream tokens (with metadata but no usage: characters / 4, rounded, at least 1)"."""
    conversation.hear("llm.delta", data={"delta": "x", "cumulative": "x" * chars}, metadata={})
    assert conversation.tokens == tokens


def test_characters_add_up_where_no_cumulative_text_comes(conversation: Conversation) -> None:
    for _ in range(5):
        conversation.hear("llm.delta", data={"delta": "abcd"}, metadata={"model": "m"})
    assert conversation.tokens == 5
    conversation.hear("llm.final", data={}, metadata={})
    assert conversation.tokens == 5


@pytest.mark.states("sem-chat/metadata/stream-tokens")
def test_stream_tokens_are_as_reported_where_usage_comes(conversation: Conversation) -> None:
    conversation.hear("llm.delta", data={"delta": "abcd"}, metadata={"usage": {"outputTokens": 17}})
    assert conversation.tokens == 17
    conversation.hear("llm.delta", data={"delta": "abcd"})
    assert conversation.tokens == 17  # without metadata nothing is known of tokens
    conversation.hear("llm.final", data={"text": "x"}, metadata={"usage": {"outputTokens": 0}})
    assert conversation.tokens == 0


@pytest.mark.states("sem-chat/metadata/turn-stats", "sem-chat/metadata/tokens-per-second")
@pytest.mark.parametrize(
    ("metadata", "stats"),
    [
        (None, None),
        ({}, None),
        ({"model": "m"}, None),
        ({"usage": {}}, None),
        ({"durationMs": 0}, TurnStats(duration_ms=0)),
        ({"usage": {"inputTokens": 1}}, TurnStats(input_tokens=1)),
        ({"durationMs": 0, "usage": {"outputTokens": 5}}, TurnStats(output_tokens=5, duration_ms=0)),
        (
            {"durationMs": 8_000, "usage": {"outputTokens": 2}},
            TurnStats(output_tokens=2, duration_ms=8_000, tokens_per_second=0.3),
        ),
    ],
)
def test_statistics_are_set_where_usage_or_a_duration_is_known(
    conversation: Conversation, metadata: Any, stats: TurnStats | None
) -> None:
    """sem-chat: "on the end of a stream turn statistics, if usage or a duration is known"."""
    conversation.hear("llm.start")
    conversation.hear("llm.final", metadata=metadata)
    assert conversation.stats == stats


@pytest.mark.states("sem-chat/metadata/totals-final-alone")
def test_totals_come_from_the_final_alone(conversation: Conversation) -> None:
    """sem-chat: "Conversation totals come from `llm.final` alone"."""
    for type in ("llm.start", "llm.delta", "llm.thinking.delta", "llm.thinking.summary"):
        conversation.hear(type, metadata={"usage": USAGE})
    assert conversation.total == 0
    conversation.hear("llm.final", metadata={"usage": USAGE})
    assert conversation.total == 44
    assert selectors.select_conversation_cached_tokens(conversation.store.state, "c") == 4


@pytest.mark.states("sem-chat/metadata/totals-by-difference")
def test_totals_grow_by_the_difference_to_what_the_same_message_reported(
    conversation: Conversation,
) -> None:
    """sem-chat: "grow by the difference to what the same message reported before"."""
    for output, id, total in [
        (10, "m1", 10),
        (10, "m1", 10),
        (25, "m1", 25),
        (5, "m2", 30),
        (20, "m1", 30),  # fewer than before: nothing is taken away …
        (25, "m1", 30),  # … and nothing counted twice
        (26, "m1", 31),
    ]:
        conversation.hear("llm.final", id, metadata={"usage": {"outputTokens": output}})
        assert conversation.total == total


@pytest.mark.states("sem-chat/metadata/bad")
@pytest.mark.parametrize(
    "metadata",
    [
        7,
        "x",
        [],
        {"model": 7, "usage": "many", "durationMs": "long"},
        {"model": " ", "usage": [1], "durationMs": -1},
        {"model": None, "usage": None, "durationMs": None},
        {"usage": {"inputTokens": "7", "outputTokens": -3, "cachedTokens": True}, "durationMs": 1.5},
        {"usage": {"outputTokens": 2**60, "inputTokens": None}, "durationMs": 1e300},
        {"usage": {"outputTokens": {}, "inputTokens": []}, "durationMs": False},
    ],
)
def test_bad_metadata_is_ignored(conversation: Conversation, metadata: Any) -> None:
    """sem-chat: "Bad metadata is ignored, not fatal"."""
    conversation.hear("llm.start")
    conversation.hear("llm.final", data={"text": "x"}, metadata=metadata)
    assert not conversation.streams
    assert (conversation.model, conversation.stats, conversation.total) == (None, None, 0)
    assert conversation.history == ()


def test_one_bad_field_of_metadata_does_not_cost_the_others(conversation: Conversation) -> None:
    conversation.hear(
        "llm.final", metadata={"model": 1, "usage": {"inputTokens": -1, "outputTokens": 3.0}, "durationMs": 2}
    )
    assert conversation.stats == TurnStats(output_tokens=3, duration_ms=2, tokens_per_second=1500.0)


@pytest.mark.states("sem-chat/text/lost-socket")
def test_all_streams_end_with_their_socket(conversation: Conversation) -> None:
    """chat-state: "streaming stops", and what was reported of tokens is still known."""
    conversation.hear("llm.final", "m0", metadata={"usage": USAGE})
    conversation.hear("llm.start", "m1")
    conversation.hear("llm.start", "m2")
    end_streams(conversation.context)
    assert not conversation.streams
    assert conversation.context.streams.running == ()
    conversation.hear("llm.final", "m0", metadata={"usage": USAGE})
    assert conversation.total == 44


def test_a_flood_of_streams_and_messages_is_bounded(conversation: Conversation) -> None:
    for number in range(MAX_RUNNING + 10):
        conversation.hear("llm.start", f"s{number}")
    running = conversation.context.streams.running
    assert len(running) == MAX_RUNNING
    assert running[0] == "s10"
    for number in range(MAX_REPORTS + 1):
        conversation.hear("llm.final", f"m{number}", metadata={"usage": {"outputTokens": 1}})
    conversation.hear("llm.final", "m1", metadata={"usage": {"outputTokens": 1}})
    assert conversation.total == MAX_REPORTS + 1
    conversation.hear("llm.final", "m0", metadata={"usage": {"outputTokens": 1}})
    assert conversation.total == MAX_REPORTS + 2  # the oldest was forgotten


def test_events_are_applied_to_their_own_conversation_alone(conversation: Conversation) -> None:
    conversation.store.dispatch(actions.set_connection_status("d", "connected"))
    before = conversation.store.state.chat_session["d"]
    conversation.hear("llm.start")
    conversation.registry.apply(conversation.context, event("llm.final", metadata={"usage": USAGE}))
    assert conversation.store.state.chat_session["d"] is before
