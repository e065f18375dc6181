"""The session slice besides errors: connection, stream, usage, and the selectors that read it."""

from __future__ import annotations

import pytest

from voicethere.chat import ChatStore, actions, selectors
from voicethere.core.chat.state import TurnStats
from voicethere.testing.clock import ManualClock

STATUSES = ["idle", "connecting", "connected", "closed", "error"]


@pytest.fixture
def store() -> ChatStore:
    return ChatStore(clock=ManualClock(now=1_000.5))


@pytest.mark.states(
    "chat-state/actions/set-connection-status",
    "chat-state/connection/statuses",
    "chat-state/selectors/connection-status",
)
@pytest.mark.parametrize("status", STATUSES)
def test_connection_status(store: ChatStore, status: str) -> None:
    store.dispatch(actions.set_connection_status("c", status))
    assert selectors.select_connection_status(store.state, "c") == status


@pytest.mark.states("chat-state/connection/statuses")
def test_an_unknown_connection_status_is_refused() -> None:
    with pytest.raises(ValueError, match=", ".join(STATUSES)):
        actions.set_connection_status("c", "open")


def test_after_a_socket_error_the_close_that_follows_makes_it_closed(store: ChatStore) -> None:
    for status in ("connected", "error", "closed"):
        store.dispatch(actions.set_connection_status("c", status))
    assert selectors.select_connection_status(store.state, "c") == "closed"


@pytest.mark.states(
    "chat-state/actions/set-is-streaming",
    "chat-state/actions/set-model-name",
    "chat-state/selectors/is-streaming",
    "chat-state/selectors/model-name",
)
def test_is_streaming_and_model_name(store: ChatStore) -> None:
    store.dispatch(actions.set_is_streaming("c", True))
    store.dispatch(actions.set_model_name("c", "  model-1 "))
    assert selectors.select_is_streaming(store.state, "c") is True
    assert selectors.select_model_name(store.state, "c") == "model-1"
    store.dispatch(actions.set_is_streaming("c", False))
    store.dispatch(actions.set_model_name("c", None))
    assert selectors.select_is_streaming(store.state, "c") is False
    assert selectors.select_model_name(store.state, "c") is None


@pytest.mark.states("chat-state/actions/set-turn-stats", "chat-state/selectors/current-turn-stats")
def test_turn_stats_from_a_record_or_a_mapping(store: ChatStore) -> None:
    stats = TurnStats(input_tokens=3, tokens_per_second=1.5)
    store.dispatch(actions.set_turn_stats("c", {"inputTokens": 3, "tokensPerSecond": 1.5}))
    assert selectors.select_current_turn_stats(store.state, "c") == stats
    before = store.state
    store.dispatch(actions.set_turn_stats("c", stats))
    assert store.state is before
    store.dispatch(actions.set_turn_stats("c", None))
    assert selectors.select_current_turn_stats(store.state, "c") is None


@pytest.mark.states(
    "chat-state/actions/add-conversation-usage",
    "chat-state/actions/add-conversation-usage/fractions",
    "chat-state/actions/add-conversation-usage/negatives",
    "chat-state/selectors/conversation-cached-tokens",
    "chat-state/selectors/conversation-total-tokens",
)
def test_usage_adds_up_whole_and_non_negative(store: ChatStore) -> None:
    """Fractions cut, negatives count as 0; the total is input + output + cached."""
    store.dispatch(actions.add_conversation_usage("c", input_tokens=10.9, output_tokens=5, cached_tokens=-3))
    store.dispatch(actions.add_conversation_usage("c", input_tokens=1, output_tokens=-0.5, cached_tokens=2))
    assert selectors.select_conversation_cached_tokens(store.state, "c") == 2
    total = selectors.select_conversation_total_tokens(store.state, "c")
    assert (total, type(total)) == (18, int)


@pytest.mark.states(
    "chat-state/actions/mark-stream-start",
    "chat-state/actions/mark-stream-start/tokens",
    "chat-state/actions/mark-stream-start/error",
    "chat-state/selectors/stream-start-time",
    "seed-2/plan/stale-clear",
)
def test_mark_stream_start_zeroes_stream_tokens_and_clears_the_current_error_not_the_history(
    store: ChatStore,
) -> None:
    store.dispatch(actions.update_stream_tokens("c", 7))
    store.dispatch(actions.push_error("c", kind="ws_error", stage="stream"))
    store.dispatch(actions.mark_stream_start("c"))
    assert selectors.select_stream_start_time(store.state, "c") == 1_000_500
    assert selectors.select_stream_output_tokens(store.state, "c") == 0
    assert selectors.select_current_error(store.state, "c") is None
    assert len(selectors.select_error_history(store.state, "c")) == 1
    store.dispatch(actions.mark_stream_start("c", 12.7))
    assert selectors.select_stream_start_time(store.state, "c") == 12


@pytest.mark.states(
    "chat-state/actions/update-stream-tokens",
    "chat-state/actions/update-stream-tokens/negatives",
    "chat-state/selectors/stream-output-tokens",
)
@pytest.mark.parametrize(("given", "kept"), [(3.9, 3), (-4, 0), (0, 0)])
def test_update_stream_tokens_cuts_and_is_at_least_0(store: ChatStore, given: float, kept: int) -> None:
    store.dispatch(actions.update_stream_tokens("c", given))
    assert selectors.select_stream_output_tokens(store.state, "c") == kept


@pytest.mark.states("chat-state/actions/reset-session", "chat-state/actions/clear-conversation-session")
def test_reset_session_makes_it_as_new_and_clearing_removes_the_entry(store: ChatStore) -> None:
    store.dispatch(actions.push_error("c", kind="ws_error", stage="stream"))
    store.dispatch(actions.set_is_streaming("c", True))
    store.dispatch(actions.reset_session("c"))
    assert selectors.select_error_history(store.state, "c") == ()
    assert selectors.select_is_streaming(store.state, "c") is False
    assert selectors.select_conversation_ids(store.state) == ("c",)
    store.dispatch(actions.clear_conversation_session("c"))
    assert selectors.select_conversation_ids(store.state) == ()
    assert "c" not in store.state.chat_session


def test_what_sets_the_same_again_changes_nothing(store: ChatStore) -> None:
    again = [
        actions.set_connection_status("c", "connected"),
        actions.set_is_streaming("c", True),
        actions.set_model_name("c", "m"),
        actions.update_stream_tokens("c", 2),
        actions.mark_stream_start("c", 5),
        actions.update_stream_tokens("c", 0),
        actions.add_conversation_usage("c"),
    ]
    for action in again:
        store.dispatch(action)
        before = store.state
        store.dispatch(action)
        assert store.state is before, action


@pytest.mark.states("chat-state/selectors/unknown")
def test_for_a_conversation_that_does_not_exist_each_selector_gives_its_empty_value(store: ChatStore) -> None:
    """... the same object every time."""
    expected = {
        "select_last_error": None,
        "select_current_error": None,
        "select_error_history": (),
        "select_has_recoverable_error": False,
        "select_connection_status": "idle",
        "select_is_streaming": False,
        "select_timeline_entities": (),
        "select_renderable_timeline_entities": (),
        "select_suggestions": (),
        "select_model_name": None,
        "select_current_turn_stats": None,
        "select_stream_start_time": None,
        "select_stream_output_tokens": 0,
        "select_conversation_cached_tokens": 0,
        "select_conversation_total_tokens": 0,
    }
    for name, empty in expected.items():
        select = getattr(selectors, name)
        value = select(store.state, "nobody")
        assert value == empty, name
        assert value is select(store.state, "no one"), name
    assert selectors.select_timeline_entity_by_id(store.state, "nobody", "e") is None
    assert selectors.select_should_show_pending_ai_placeholder(store.state, "w", "nobody") is False
    assert selectors.select_conversation_ids(store.state) is selectors.select_conversation_ids(store.state)
    named = {name for name in vars(selectors) if name.startswith("select_")}
    rest = {
        "select_timeline_entity_by_id",
        "select_should_show_pending_ai_placeholder",
        "select_conversation_ids",
    }
    assert named == set(expected) | rest
    assert len(store.state.chat_session) == 0


@pytest.mark.states("chat-state/selectors/conversation-ids")
def test_conversation_ids_are_those_with_a_session_or_a_timeline(store: ChatStore) -> None:
    store.dispatch(actions.set_is_streaming("b", True))
    store.dispatch(actions.apply_snapshot("a", []))
    assert selectors.select_conversation_ids(store.state) == ("a", "b")
