"""The window slice: the placeholder "assistant is thinking"."""

from __future__ import annotations

import pytest

from voicethere.chat import ChatStore, TimelineEntity, actions, selectors


@pytest.fixture
def store() -> ChatStore:
    store = ChatStore()
    store.dispatch(actions.set_window_conversation("w", "c"))
    return store


def shown(store: ChatStore, window_id: str = "w", conv_id: str = "c") -> bool:
    return selectors.select_should_show_pending_ai_placeholder(store.state, window_id, conv_id)


def say(store: ChatStore, entity_id: str, role: str, kind: str = "message") -> None:
    store.dispatch(actions.upsert_entity("c", TimelineEntity(entity_id, kind, 1, props={"role": role})))


def begin(store: ChatStore) -> None:
    """The user writes in the window, and the message is shown."""
    store.dispatch(actions.begin_awaiting_ai("w", "c"))
    say(store, "prompt", "user")


@pytest.mark.states(
    "chat-state/window/begin-awaiting-ai",
    "chat-state/window/placeholder",
    "chat-state/selectors/should-show-pending-ai-placeholder",
)
def test_it_shows_from_the_users_message_until_the_first_entity_of_anyone_else(store: ChatStore) -> None:
    say(store, "greeting", "assistant")
    assert shown(store) is False
    store.dispatch(actions.begin_awaiting_ai("w", "c"))
    assert shown(store) is False
    say(store, "late", "assistant")
    say(store, "prompt", "user")
    assert shown(store) is True
    store.dispatch(actions.upsert_suggestions("c", entity_id="s", source="assistant", suggestions=["yes"]))
    say(store, "greeting", "assistant")
    assert shown(store) is True
    say(store, "reply", "assistant")
    assert shown(store) is False


@pytest.mark.states("chat-state/window/placeholder")
def test_a_message_that_the_client_has_shown_already_is_the_users_too(store: ChatStore) -> None:
    say(store, "before", "user")
    say(store, "answer", "assistant")
    store.dispatch(actions.begin_awaiting_ai("w", "c"))
    assert shown(store) is False
    say(store, "prompt", "user")
    store.dispatch(actions.begin_awaiting_ai("w", "c"))
    assert shown(store) is True
    say(store, "reply", "assistant")
    assert shown(store) is False


@pytest.mark.states("chat-state/window/placeholder")
def test_what_the_user_says_later_is_another_window_s_to_wait_for(store: ChatStore) -> None:
    store.dispatch(actions.begin_awaiting_ai("w", "c"))
    say(store, "prompt", "user")
    say(store, "reply", "assistant")
    say(store, "from another device", "user")
    assert shown(store) is False


@pytest.mark.states("chat-state/window/placeholder")
def test_a_log_entity_is_of_someone_else_too(store: ChatStore) -> None:
    begin(store)
    assert shown(store) is True
    say(store, "log", "", kind="log")
    assert shown(store) is False


@pytest.mark.states("chat-state/window/placeholder-error")
def test_not_while_the_connection_is_in_error(store: ChatStore) -> None:
    begin(store)
    store.dispatch(actions.set_connection_status("c", "error"))
    assert shown(store) is False
    store.dispatch(actions.set_connection_status("c", "connected"))
    assert shown(store) is True


def test_a_snapshot_in_between_neither_hides_nor_keeps_it(store: ChatStore) -> None:
    """A reconnect brings the old entities again (and not what only this client had)."""
    for entity_id in ("log-1", "log-2", "old"):
        say(store, entity_id, "assistant")
    begin(store)
    old = TimelineEntity("old", "message", 1, props={"role": "assistant"})
    prompt = TimelineEntity("prompt", "message", 1, props={"role": "user"})
    store.dispatch(actions.apply_snapshot("c", [old, prompt]))
    assert shown(store) is True
    reply = TimelineEntity("reply", "message", 2, props={"role": "assistant"})
    store.dispatch(actions.apply_snapshot("c", [old, prompt, reply]))
    assert shown(store) is False


def test_a_cleared_conversation_is_not_waited_for(store: ChatStore) -> None:
    say(store, "old", "assistant")
    begin(store)
    store.dispatch(actions.clear_conversation("c"))
    assert shown(store) is False


@pytest.mark.states("chat-state/window/clear-awaiting-ai", "chat-state/window/clear-window-state")
def test_clear_awaiting_ai_and_clear_window_state_end_it(store: ChatStore) -> None:
    begin(store)
    store.dispatch(actions.clear_awaiting_ai("w"))
    assert shown(store) is False
    begin(store)
    store.dispatch(actions.clear_window_state("w"))
    assert shown(store) is False
    assert "w" not in store.state.chat_window
    before = store.state
    for action in (actions.clear_awaiting_ai("w"), actions.clear_window_state("w")):
        store.dispatch(action)
    assert store.state is before


@pytest.mark.states(
    "chat-state/window/set-window-conversation", "chat-state/selectors/should-show-pending-ai-placeholder"
)
def test_a_window_that_shows_another_conversation_waits_for_nothing(store: ChatStore) -> None:
    begin(store)
    store.dispatch(actions.set_window_conversation("w", "c"))
    assert shown(store) is True
    assert shown(store, conv_id="d") is False
    store.dispatch(actions.set_window_conversation("w", "d"))
    assert shown(store) is False
    assert shown(store, conv_id="d") is False


def test_windows_are_independent(store: ChatStore) -> None:
    begin(store)
    store.dispatch(actions.set_window_conversation("v", "c"))
    assert shown(store, "v") is False
