"""Properties of any order of actions, of any interleaving of a snapshot and upserts, and of the cost."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicethere.chat import ChatErrorKind, ChatErrorStage, ChatStore, TimelineEntity, actions, selectors
from voicethere.core.chat.state import ChatState
from voicethere.testing.clock import ManualClock

CONVERSATIONS = st.sampled_from(["a", "b", "c"])
ENTITY_IDS = st.sampled_from(["e1", "e2", "e3"])
TIMES = st.integers(0, 20_000)
VERSIONS = st.none() | st.integers(-1, 6)
PROPS = st.dictionaries(st.sampled_from(["x", "role"]), st.sampled_from(["user", "other", None, 1, True]))
ENTITIES = st.builds(
    TimelineEntity, ENTITY_IDS, st.sampled_from(["message", "log"]), TIMES, st.none() | TIMES, VERSIONS, PROPS
)
ERRORS = {
    "kind": st.sampled_from(list(ChatErrorKind)),
    "stage": st.sampled_from(list(ChatErrorStage)),
    "message": st.sampled_from([None, "one", "two", " "]),
    "status": st.none() | st.sampled_from([404, 429, 500]),
    "recoverable": st.none() | st.booleans(),
    "at": st.none() | TIMES,
}
NUMBERS = st.integers(-5, 5) | st.floats(-5, 5)
ACTIONS: st.SearchStrategy[Any] = st.one_of(
    st.builds(actions.push_error, CONVERSATIONS, **ERRORS),
    st.builds(actions.push_error, CONVERSATIONS, **ERRORS),
    st.builds(actions.set_error, CONVERSATIONS, **ERRORS),
    st.builds(actions.clear_error, CONVERSATIONS),
    st.builds(actions.set_connection_status, CONVERSATIONS, st.sampled_from(["error", "closed"])),
    st.builds(actions.set_is_streaming, CONVERSATIONS, st.booleans()),
    st.builds(actions.mark_stream_start, CONVERSATIONS),
    st.builds(actions.update_stream_tokens, CONVERSATIONS, NUMBERS),
    st.builds(actions.add_conversation_usage, CONVERSATIONS, input_tokens=NUMBERS, cached_tokens=NUMBERS),
    st.builds(actions.reset_session, CONVERSATIONS),
    st.builds(actions.clear_conversation_session, CONVERSATIONS),
    st.builds(actions.add_entity, CONVERSATIONS, ENTITIES),
    st.builds(actions.upsert_entity, CONVERSATIONS, ENTITIES),
    st.builds(actions.rekey_entity, CONVERSATIONS, ENTITY_IDS, ENTITY_IDS),
    st.builds(actions.apply_snapshot, CONVERSATIONS, st.lists(ENTITIES, max_size=4)),
    st.builds(actions.merge_snapshot, CONVERSATIONS, st.lists(ENTITIES, max_size=4)),
    st.builds(
        actions.upsert_suggestions,
        CONVERSATIONS,
        entity_id=st.sampled_from(["s", "e1"]),
        source=st.sampled_from(["starter", "assistant"]),
        suggestions=st.lists(st.sampled_from(["A", "a", " b"]), max_size=3),
        replace=st.booleans(),
        version=VERSIONS,
    ),
    st.builds(actions.consume_suggestions, CONVERSATIONS, st.sampled_from(["s", "e1"])),
    st.builds(actions.clear_conversation, CONVERSATIONS),
)


def image(state: ChatState) -> bytes:
    """Everything in a state, as bytes that cannot change with it."""
    return msgspec.json.encode(
        {
            "sessions": {key: state.chat_session[key] for key in sorted(state.chat_session)},
            "timelines": {
                key: sorted(state.timeline[key].slots.values(), key=lambda slot: slot.position)
                for key in sorted(state.timeline)
            },
        },
        order="sorted",
    )


@pytest.mark.states(
    "chat-state/last-error",
    "chat-state/store/immutable",
    "chat-state/store/sharing",
    "seed-2/decisions/bounded-history",
    "seed-2/alternatives/no-global-slice",
)
@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(ACTIONS, st.sampled_from([0.0, 0.5, 6.0])), max_size=40),
    st.sampled_from([0, 5_000]),
)
def test_any_order_of_actions_keeps_the_invariants(steps: list[tuple[Any, float]], window_ms: int) -> None:
    """History <= 20; `last_error` equals the current message; old states unchanged; conversations
    independent; unchanged parts are the same object."""
    clock = ManualClock()
    store = ChatStore(clock=clock, duplicate_window_ms=window_ms)
    seen: list[tuple[ChatState, bytes]] = []
    for action, seconds in steps:
        clock.advance(seconds)
        before = store.state
        seen.append((before, image(before)))
        after = store.dispatch(action)
        for conv_id in selectors.select_conversation_ids(after):
            current = selectors.select_current_error(after, conv_id)
            message = None if current is None else current.message
            assert selectors.select_last_error(after, conv_id) == message
            history = selectors.select_error_history(after, conv_id)
            assert len(history) <= 20
            assert len({record.id for record in history}) == len(history)
            ids = [entity.id for entity in selectors.select_timeline_entities(after, conv_id)]
            assert len(set(ids)) == len(ids)
            if conv_id != action.conv_id:
                assert after.chat_session.get(conv_id) is before.chat_session.get(conv_id)
                assert after.timeline.get(conv_id) is before.timeline.get(conv_id)
        assert after is before or image(after) != image(before)
        assert after.chat_window is before.chat_window
        assert after.timeline is before.timeline or after.chat_session is before.chat_session
    for state, was in seen:
        assert image(state) == was


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["one", "two", "three"]), max_size=60))
def test_any_storm_of_errors_is_bounded_and_counted(messages: list[str]) -> None:
    """Nothing is lost within a window: records and their repeats add up to what was pushed."""
    store = ChatStore(clock=ManualClock())
    for message in messages:
        store.dispatch(actions.push_error("a", kind="ws_error", stage="stream", message=message))
    history = selectors.select_error_history(store.state, "a")
    counted = sum(1 + (record.details or {}).get("repeats", 0) for record in history)
    assert counted == len(messages) if len(history) < 20 else counted <= len(messages)
    if messages:
        assert history[-1].message == messages[-1]
        assert selectors.select_current_error(store.state, "a") is history[-1]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_interleaving_of_snapshot_and_versioned_upserts_gives_the_same_timeline(
    data: st.DataObject,
) -> None:
    """One counter per conversation; every upsert carries the whole entity, as the contract wants it.

    The upserts come in any order and some twice; the snapshot comes anywhere among them.
    """
    changes = data.draw(st.lists(st.tuples(ENTITY_IDS, st.integers(0, 99)), min_size=1, max_size=8))
    upserts = [
        TimelineEntity(id, "message", 1, updated_at=100 + version, version=version, props={"content": text})
        for version, (id, text) in enumerate(changes, start=1)
    ]
    taken_at = data.draw(st.integers(0, len(upserts)))
    then = {entity.id: entity for entity in upserts[:taken_at]}
    snapshot = [msgspec.structs.replace(entity, version=taken_at) for entity in then.values()]
    steps: list[Any] = [actions.upsert_entity("c", entity) for entity in upserts]
    steps += data.draw(st.lists(st.sampled_from(steps), max_size=3))
    steps.append(actions.merge_snapshot("c", snapshot))
    store = ChatStore()
    for step in data.draw(st.permutations(steps)):
        store.dispatch(step)
    last = {entity.id: entity for entity in upserts}
    expected = {
        id: msgspec.structs.replace(entity, version=max(entity.version or 0, taken_at if id in then else 0))
        if id in then and then[id] is entity
        else entity
        for id, entity in last.items()
    }
    found = {entity.id: entity for entity in selectors.select_timeline_entities(store.state, "c")}
    assert found == expected


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_snapshot_that_is_applied_before_the_replay_of_any_frames_loses_nothing(
    data: st.DataObject,
) -> None:
    """Connecting: the snapshot first, then what was buffered; what came before it was applied comes again."""
    changes = data.draw(st.lists(st.tuples(ENTITY_IDS, st.integers(0, 99)), min_size=1, max_size=8))
    upserts = [
        TimelineEntity(id, "message", 1, version=version, props={"content": text})
        for version, (id, text) in enumerate(changes, start=1)
    ]
    taken_at = data.draw(st.integers(0, len(upserts)))
    then = {entity.id: entity for entity in upserts[:taken_at]}
    snapshot = [msgspec.structs.replace(entity, version=taken_at) for entity in then.values()]
    store = ChatStore()
    store.dispatch(actions.apply_snapshot("c", snapshot))
    for entity in data.draw(st.permutations(upserts)):
        store.dispatch(actions.upsert_entity("c", entity))
    found = {entity.id: entity.props for entity in selectors.select_timeline_entities(store.state, "c")}
    assert found == {entity.id: entity.props for entity in upserts}


def calls_of(store: ChatStore, action: Any) -> int:
    """How many calls, of Python and of C, dispatching takes: a cost that no load of the machine moves."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    # The collector's callbacks (hypothesis has one) would count too, whenever they happen to come.
    gc.disable()
    sys.setprofile(count)
    try:
        store.dispatch(action)
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


@pytest.mark.parametrize(
    "action",
    [
        actions.push_error("new", kind="ws_error", stage="stream"),
        actions.set_is_streaming("conv-0", True),
        actions.upsert_entity("conv-0", TimelineEntity("e2", "message", 1)),
        actions.apply_snapshot("conv-0", [TimelineEntity("e", "message", 2)]),
        actions.clear_conversation("conv-0"),
        actions.clear_conversation_session("conv-0"),
        actions.begin_awaiting_ai("w", "conv-0"),
    ],
    ids=lambda action: type(action).__name__,
)
def test_the_cost_of_an_action_does_not_depend_on_the_number_of_conversations(action: Any) -> None:
    costs = []
    for conversations in (1, 2_000):
        store = ChatStore(clock=ManualClock())
        for number in range(conversations):
            store.dispatch(actions.set_connection_status(f"conv-{number}", "connected"))
            store.dispatch(actions.upsert_entity(f"conv-{number}", TimelineEntity("e", "message", 1)))
        costs.append(calls_of(store, action))
    assert costs[0] == costs[1]


def test_one_action_among_many_conversations_copies_next_to_nothing() -> None:
    """The map shares its structure: the next state needs a few nodes, not another table of 2,000 entries."""
    store = ChatStore(clock=ManualClock())
    for number in range(2_000):
        store.dispatch(actions.set_connection_status(f"conv-{number}", "connected"))
    before = store.state
    gc.disable()
    tracemalloc.start()
    try:
        store.dispatch(actions.set_is_streaming("conv-7", True))
        allocated, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert store.state is not before
    assert allocated < 8_000  # a copied dict of 2,000 entries takes ten times that
