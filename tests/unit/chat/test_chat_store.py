"""The store: immutable states, listeners, and what the package exports."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

import voicethere.chat
from voicethere.chat import ChatStore, TimelineEntity, actions, selectors
from voicethere.core.chat.reducers import REDUCERS, reduce
from voicethere.core.chat.state import EMPTY_STATE


@pytest.mark.states("chat-state/exports")
def test_every_export_is_named_here() -> None:
    assert set(voicethere.chat.__all__) == {
        "ChatErrorKind",
        "ChatErrorRecord",
        "ChatErrorStage",
        "ChatHttpError",
        "ChatLimits",
        "ChatStore",
        "ChatTimings",
        "Conversation",
        "ConversationManager",
        "EventLog",
        "EventLogEntry",
        "LifecyclePhase",
        "Reconnecting",
        "SemContext",
        "SemEvent",
        "SemRegistry",
        "TimelineEntity",
        "actions",
        "selectors",
    }
    assert all(hasattr(voicethere.chat, name) for name in voicethere.chat.__all__)
    assert all(hasattr(actions, name) for name in actions.__all__)


def test_every_action_has_a_reducer() -> None:
    assert set(REDUCERS) == set(actions.Action.__args__)


def test_it_imports_without_the_platform_and_without_an_event_loop() -> None:
    script = (
        "import sys, voicethere.chat\n"
        "heavy = {'asyncio', 'litestar', 'sqlalchemy', 'structlog', 'aiortc', 'numpy', 'httpx'}\n"
        "print(sorted(set(sys.modules) & heavy))\n"
        "print(sorted(n for n in sys.modules if n.startswith(('voicethere.roles', 'voicethere.adapters'))))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stderr, done.stdout) == ("", "[]\n[]\n")


@pytest.mark.states("chat-state/store/immutable", "chat-state/store/sharing")
def test_an_old_state_never_changes_and_what_did_not_change_is_the_same_object() -> None:
    store = ChatStore()
    store.dispatch(actions.push_error("a", kind="ws_error", stage="stream", message="one"))
    store.dispatch(actions.upsert_entity("b", TimelineEntity("e", "message", 1)))
    old = store.state
    store.dispatch(actions.push_error("a", kind="ws_error", stage="stream", message="two"))
    assert selectors.select_last_error(old, "a") == "one"
    assert store.state is not old
    assert store.state.timeline is old.timeline
    assert store.state.chat_window is old.chat_window
    store.dispatch(actions.set_is_streaming("c", True))
    assert store.state.chat_session["a"].error_history is not old.chat_session["a"].error_history
    session = store.state.chat_session["a"]
    store.dispatch(actions.set_is_streaming("c", False))
    assert store.state.chat_session["a"] is session


@pytest.mark.states(
    "chat-state/store/chat-session", "chat-state/store/timeline", "chat-state/store/chat-window"
)
def test_the_state_has_three_slices_and_an_action_changes_its_own() -> None:
    store = ChatStore()
    for action, changed in (
        (actions.push_error("a", kind="ws_error", stage="stream"), "chat_session"),
        (actions.set_is_streaming("a", True), "chat_session"),
        (actions.upsert_entity("b", TimelineEntity("e", "message", 1)), "timeline"),
        (actions.set_window_conversation("w", "c"), "chat_window"),
    ):
        before = store.state
        store.dispatch(action)
        for name in ("chat_session", "timeline", "chat_window"):
            same = getattr(store.state, name) is getattr(before, name)
            assert same is (name != changed), (action, name)
    assert set(store.state.chat_session) == {"a"}
    assert set(store.state.timeline) == {"b"}
    assert set(store.state.chat_window) == {"w"}


def test_the_state_and_its_records_refuse_assignment() -> None:
    store = ChatStore()
    store.dispatch(actions.push_error("a", kind="ws_error", stage="stream"))
    record: Any = selectors.select_current_error(store.state, "a")
    for target, name in ((store.state, "timeline"), (record, "message"), (store, "state")):
        with pytest.raises(AttributeError):
            setattr(target, name, None)


@pytest.mark.states("chat-state/store/subscribe", "chat-state/store/unsubscribe")
def test_listeners_hear_of_each_change_with_the_completed_action_until_they_unsubscribe() -> None:
    store = ChatStore()
    heard: list[tuple[Any, Any]] = []
    unsubscribe = store.subscribe(lambda state, action: heard.append((state, action)))
    store.dispatch(actions.push_error("a", kind="ws_error", stage="stream"))
    assert heard[0][0] is store.state
    assert heard[0][1].error is selectors.select_current_error(store.state, "a")
    store.dispatch(actions.clear_error("b"))
    assert len(heard) == 1
    unsubscribe()
    unsubscribe()
    store.dispatch(actions.clear_error("a"))
    assert len(heard) == 1


def test_a_listener_that_dispatches_is_applied_at_once_and_heard_by_all_in_order() -> None:
    store = ChatStore()
    first: list[str] = []
    second: list[str] = []

    def answer(state: Any, action: Any) -> None:
        first.append(type(action).__name__)
        if type(action).__name__ == "PushError":
            after = store.dispatch(actions.clear_error("a"))
            assert selectors.select_current_error(after, "a") is None

    store.subscribe(answer)
    store.subscribe(lambda state, action: second.append(type(action).__name__))
    store.dispatch(actions.push_error("a", kind="ws_error", stage="stream"))
    assert first == second == ["PushError", "ClearError"]


def test_a_listener_that_raises_is_logged_and_the_others_still_hear(caplog: pytest.LogCaptureFixture) -> None:
    store = ChatStore()
    heard: list[Any] = []
    store.subscribe(lambda state, action: 1 / 0)
    store.subscribe(lambda state, action: heard.append(action))
    with caplog.at_level(logging.ERROR, logger="voicethere.chat"):
        store.dispatch(actions.set_is_streaming("a", True))
        store.dispatch(actions.set_is_streaming("a", False))
    assert len(heard) == 2
    assert "ZeroDivisionError" in caplog.text
    assert "SetIsStreaming" in caplog.text


def test_a_listener_that_another_one_unsubscribed_hears_nothing_more() -> None:
    store = ChatStore()
    heard: list[Any] = []
    rest: list[Any] = []
    store.subscribe(lambda state, action: [stop() for stop in rest])
    rest.append(store.subscribe(lambda state, action: heard.append(action)))
    store.dispatch(actions.set_is_streaming("a", True))
    assert heard == []


def test_what_is_not_an_action_is_refused() -> None:
    store = ChatStore()
    for thing in (None, "set_error", {"type": "x"}):
        with pytest.raises(TypeError, match="not an action"):
            store.dispatch(thing)  # type: ignore[arg-type]
    assert store.state is EMPTY_STATE


@pytest.mark.states("chat-state/normalize/at-dispatch")
def test_a_reducer_alone_refuses_an_error_that_the_store_has_not_completed() -> None:
    with pytest.raises(TypeError, match="ChatStore"):
        reduce(EMPTY_STATE, actions.push_error("a", kind="ws_error", stage="stream"))


@pytest.mark.parametrize("window", [-1, float("nan"), float("inf")])
def test_an_impossible_duplicate_window_is_refused(window: float) -> None:
    with pytest.raises(ValueError, match="duplicate_window_ms"):
        ChatStore(duplicate_window_ms=window)  # type: ignore[arg-type]
