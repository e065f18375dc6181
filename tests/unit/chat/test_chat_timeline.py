"""The timeline slice: chat-state.md (timeline actions) and sem-chat.md ("Versions")."""

from __future__ import annotations

from typing import Any

import pytest

from voicethere.chat import ChatStore, TimelineEntity, actions, selectors
from voicethere.testing.clock import ManualClock


@pytest.fixture
def store() -> ChatStore:
    return ChatStore(clock=ManualClock(now=1.0))


def entity(id: str = "e", kind: str = "message", created_at: int = 1, **fields: Any) -> TimelineEntity:
    return TimelineEntity(id, kind, created_at, **fields)


def upsert(store: ChatStore, *entities: TimelineEntity) -> TimelineEntity:
    for each in entities:
        store.dispatch(actions.upsert_entity("c", each))
    found = selectors.select_timeline_entity_by_id(store.state, "c", entities[-1].id)
    assert found is not None
    return found


def ids(store: ChatStore) -> list[str]:
    return [each.id for each in selectors.select_timeline_entities(store.state, "c")]


@pytest.mark.states("chat-state/timeline/entity")
def test_an_entity_has_the_fields_of_the_contract_in_its_order() -> None:
    given: Any = ("e", "message", 1, 2, 3, {"a": None})
    names = ("id", "kind", "created_at", "updated_at", "version", "props")
    assert TimelineEntity.__struct_fields__ == names
    assert TimelineEntity(*given) == TimelineEntity(**dict(zip(names, given, strict=True)))
    bare = TimelineEntity("e", "message", 1)
    assert (bare.updated_at, bare.version, bare.props) == (None, None, {})
    assert type(bare.props) is dict


@pytest.mark.states("chat-state/timeline/add-entity")
def test_add_entity_leaves_a_known_id_alone(store: ChatStore) -> None:
    store.dispatch(actions.add_entity("c", entity(props={"a": 1})))
    assert selectors.select_timeline_entities(store.state, "c") == (entity(props={"a": 1}),)
    before = store.state
    store.dispatch(actions.add_entity("c", entity(kind="log", props={"a": 2})))
    assert store.state is before


@pytest.mark.states("sem-chat/version/older")
def test_an_incoming_positive_version_lower_than_the_known_one_is_dropped(store: ChatStore) -> None:
    upsert(store, entity(version=5, props={"a": 1}))
    before = store.state
    upsert(store, entity(version=4, props={"a": 2}))
    assert store.state is before


@pytest.mark.states("chat-state/timeline/upsert-entity", "sem-chat/version/newer")
@pytest.mark.parametrize("version", [5, 6])
def test_an_equal_or_higher_version_merges_key_by_key(store: ChatStore, version: int) -> None:
    """Kind and creation time follow when given."""
    merged = upsert(
        store,
        entity(version=5, updated_at=10, props={"a": 1, "b": {"x": 1}}),
        entity(kind="log", created_at=2, version=version, props={"b": {"y": 1}, "c": None}),
    )
    assert merged == TimelineEntity("e", "log", 2, 10, version, {"a": 1, "b": {"y": 1}, "c": None})
    assert upsert(store, entity(created_at=0, version=version)).created_at == 2


@pytest.mark.states("sem-chat/version/unversioned")
def test_an_unversioned_report_of_a_versioned_entity_updates_properties_and_updated_at_only(
    store: ChatStore,
) -> None:
    merged = upsert(
        store,
        entity(version=5, props={"a": 1}),
        entity(kind="log", created_at=9, updated_at=9, props={"b": 2}),
    )
    assert merged == TimelineEntity("e", "message", 1, 9, 5, {"a": 1, "b": 2})


@pytest.mark.states("sem-chat/version/both-unversioned")
@pytest.mark.parametrize("none", [None, 0, -1])
def test_two_unversioned_ones_merge_and_keep_the_first_creation_time(
    store: ChatStore, none: int | None
) -> None:
    merged = upsert(
        store, entity(version=none, props={"a": 1}), entity(kind="log", created_at=9, version=none)
    )
    assert merged == TimelineEntity("e", "log", 1, None, None, {"a": 1})


@pytest.mark.states("chat-state/selectors/timeline-entities", "sem-chat/version/order")
def test_first_arrival_fixes_the_order(store: ChatStore) -> None:
    upsert(store, entity("b", created_at=9), entity("a", created_at=1), entity("b", version=7))
    assert ids(store) == ["b", "a"]


def test_a_report_that_changes_nothing_gives_the_same_state_and_true_is_not_1(store: ChatStore) -> None:
    upsert(store, entity(version=3, props={"a": [1, {"b": True}]}))
    before = store.state
    upsert(store, entity(version=3, props={"a": [1, {"b": True}]}))
    assert store.state is before
    changed = upsert(store, entity(version=3, props={"a": [1, {"b": 1}]}))
    assert type(changed.props["a"][1]["b"]) is int


@pytest.mark.states("chat-state/timeline/rekey-entity")
def test_rekey_gives_an_entity_another_id_in_its_place(store: ChatStore) -> None:
    upsert(store, entity("local", props={"t": 1}), entity("z"))
    store.dispatch(actions.rekey_entity("c", "local", "server"))
    assert ids(store) == ["server", "z"]
    assert selectors.select_timeline_entity_by_id(store.state, "c", "local") is None


@pytest.mark.states("chat-state/timeline/rekey-entity/target", "chat-state/selectors/timeline-entity-by-id")
def test_an_existing_targets_kind_and_properties_win_and_the_sources_slot_goes(store: ChatStore) -> None:
    upsert(
        store,
        entity("local", kind="draft", created_at=3, props={"text": "mine", "only": 1}),
        entity("x"),
        entity("server", created_at=0, version=4, props={"text": "theirs"}),
    )
    store.dispatch(actions.rekey_entity("c", "local", "server"))
    assert ids(store) == ["x", "server"]
    assert selectors.select_timeline_entity_by_id(store.state, "c", "server") == TimelineEntity(
        "server", "message", 3, None, 4, {"text": "theirs", "only": 1}
    )


@pytest.mark.parametrize(("source", "target"), [("nobody", "a"), ("a", "a")])
def test_rekeying_nothing_changes_nothing(store: ChatStore, source: str, target: str) -> None:
    upsert(store, entity("a"))
    before = store.state
    store.dispatch(actions.rekey_entity("c", source, target))
    assert store.state is before


@pytest.mark.states("chat-state/timeline/apply-snapshot")
def test_apply_snapshot_replaces(store: ChatStore) -> None:
    upsert(store, entity("old"), entity("kept", version=9, props={"a": 1}))
    store.dispatch(
        actions.apply_snapshot("c", [entity("new"), entity("kept", version=2), entity("new", props={"a": 1})])
    )
    assert ids(store) == ["new", "kept"]
    assert selectors.select_timeline_entity_by_id(store.state, "c", "kept") == entity("kept", version=2)
    assert selectors.select_timeline_entity_by_id(store.state, "c", "new") == entity("new", props={"a": 1})


def test_the_same_snapshot_again_changes_nothing_and_known_entities_stay_the_same_objects(
    store: ChatStore,
) -> None:
    snapshot = [entity("a", props={"t": 1}), entity("b")]
    store.dispatch(actions.apply_snapshot("c", snapshot))
    before = store.state
    store.dispatch(actions.apply_snapshot("c", snapshot))
    assert store.state is before
    kept = selectors.select_timeline_entity_by_id(store.state, "c", "a")
    store.dispatch(actions.apply_snapshot("c", [entity("z"), *snapshot]))
    assert selectors.select_timeline_entity_by_id(store.state, "c", "a") is kept


@pytest.mark.states("chat-state/timeline/merge-snapshot")
def test_merge_snapshot_merges_by_version_and_keeps_what_is_not_in_it(store: ChatStore) -> None:
    upsert(store, entity("a", version=5, props={"t": "new"}), entity("mine"))
    store.dispatch(actions.merge_snapshot("c", [entity("a", version=4, props={"t": "old"}), entity("b")]))
    assert ids(store) == ["a", "mine", "b"]
    assert selectors.select_timeline_entities(store.state, "c")[0].props == {"t": "new"}
    before = store.state
    store.dispatch(actions.merge_snapshot("c", [entity("b")]))
    assert store.state is before


def test_a_merged_snapshot_that_leads_back_to_what_was_known_changes_nothing(store: ChatStore) -> None:
    upsert(store, entity(kind="log"))
    before = store.state
    store.dispatch(actions.merge_snapshot("c", [entity(), entity(kind="log")]))
    assert store.state is before


@pytest.mark.states("chat-state/timeline/unknown-kinds", "chat-state/timeline/unknown-props")
def test_unknown_kinds_and_properties_pass_through(store: ChatStore) -> None:
    odd = entity(kind="hologram", props={"deep": [{"é": None}], "n": 2**63})
    assert upsert(store, odd) == odd


@pytest.mark.states("chat-state/timeline/clear-conversation")
def test_clear_conversation_removes_the_timeline_alone(store: ChatStore) -> None:
    upsert(store, entity())
    store.dispatch(actions.set_is_streaming("c", True))
    store.dispatch(actions.clear_conversation("c"))
    assert ids(store) == []
    assert selectors.select_is_streaming(store.state, "c") is True


def test_no_one_can_change_an_entity_through_the_dict_that_it_came_with(store: ChatStore) -> None:
    props: dict[str, Any] = {"a": [1]}
    upsert(store, entity(props=props))
    props["a"].append(2)
    assert selectors.select_timeline_entities(store.state, "c")[0].props == {"a": [1]}


def suggest(store: ChatStore, *items: str, source: str = "assistant", **fields: Any) -> None:
    given: dict[str, Any] = {"entity_id": f"suggestions:{source}", "source": source, **fields}
    store.dispatch(actions.upsert_suggestions("c", suggestions=items, **given))


def suggested(store: ChatStore) -> tuple[str, ...]:
    return selectors.select_suggestions(store.state, "c")


@pytest.mark.states("chat-state/timeline/upsert-suggestions/distinct")
def test_suggestions_are_trimmed_and_deduplicated_without_regard_to_case(store: ChatStore) -> None:
    suggest(store, " Yes ", "yes", "", "No", "NO ")
    assert suggested(store) == ("Yes", "No")


@pytest.mark.states("chat-state/timeline/upsert-suggestions")
def test_replace_replaces_and_without_it_suggestions_are_added(store: ChatStore) -> None:
    suggest(store, "a", "b", replace=True)
    suggest(store, "B", "c", replace=False)
    assert suggested(store) == ("a", "b", "c")
    suggest(store, "d", replace=True)
    assert suggested(store) == ("d",)


@pytest.mark.states("chat-state/timeline/upsert-suggestions/older")
def test_an_older_version_of_suggestions_is_ignored(store: ChatStore) -> None:
    suggest(store, "new", version=3, updated_at=50)
    before = store.state
    suggest(store, "old", version=2)
    assert store.state is before
    found = selectors.select_timeline_entities(store.state, "c")[0]
    assert (found.version, found.created_at, found.updated_at) == (3, 50, 50)


@pytest.mark.states("chat-state/timeline/consume-suggestions", "chat-state/selectors/suggestions/consumed")
def test_consumed_suggestions_are_hidden_and_consumed_once(store: ChatStore) -> None:
    suggest(store, "a")
    store.dispatch(actions.consume_suggestions("c", "suggestions:assistant", 70))
    assert suggested(store) == ()
    before = store.state
    store.dispatch(actions.consume_suggestions("c", "suggestions:assistant", 80))
    assert store.state is before
    assert selectors.select_timeline_entities(store.state, "c")[0].props["consumedAt"] == 70


@pytest.mark.states("chat-state/timeline/upsert-suggestions/new")
def test_new_suggestions_clear_consumed_at(store: ChatStore) -> None:
    suggest(store, "a", version=1)
    store.dispatch(actions.consume_suggestions("c", "suggestions:assistant", 70))
    suggest(store, "a", version=2)
    assert suggested(store) == ("a",)


def test_the_same_version_of_suggestions_again_leaves_them_consumed(store: ChatStore) -> None:
    suggest(store, "a", version=1, updated_at=5)
    store.dispatch(actions.consume_suggestions("c", "suggestions:assistant", 70))
    suggest(store, "a", version=1, updated_at=5)
    assert suggested(store) == ()


def test_what_is_not_a_suggestion_cannot_be_consumed(store: ChatStore) -> None:
    upsert(store, entity("m"))
    before = store.state
    for entity_id in ("m", "nobody"):
        store.dispatch(actions.consume_suggestions("c", entity_id, 1))
    assert store.state is before


@pytest.mark.states("chat-state/selectors/suggestions/order", "chat-state/selectors/suggestions/starters")
def test_the_assistants_come_before_the_starters_which_show_only_while_nothing_else_is_there(
    store: ChatStore,
) -> None:
    suggest(store, "start", source="starter")
    assert suggested(store) == ("start",)
    suggest(store, "assist")
    assert suggested(store) == ("assist",)
    store.dispatch(actions.consume_suggestions("c", "suggestions:assistant", 1))
    assert suggested(store) == ("start",)
    upsert(store, entity("m"))
    assert suggested(store) == ()


@pytest.mark.states("chat-state/selectors/renderable-timeline-entities")
def test_renderable_entities_are_those_without_suggestions(store: ChatStore) -> None:
    suggest(store, "a")
    upsert(store, entity("m"))
    shown = selectors.select_renderable_timeline_entities(store.state, "c")
    assert [each.id for each in shown] == ["m"]
    assert ids(store) == ["suggestions:assistant", "m"]


@pytest.mark.parametrize("items", [None, "text", [1, None], {"a": 1}])
def test_suggestions_of_a_server_in_a_shape_of_its_own_are_no_suggestions(
    store: ChatStore, items: Any
) -> None:
    upsert(store, entity(kind="suggestions", props={"items": items, "source": ["x"]}))
    assert suggested(store) == ()


def test_selected_timelines_are_the_same_object_until_the_conversation_changes(store: ChatStore) -> None:
    upsert(store, entity("m"))
    names = (
        selectors.select_timeline_entities,
        selectors.select_renderable_timeline_entities,
        selectors.select_suggestions,
    )
    before = [select(store.state, "c") for select in names]
    store.dispatch(actions.set_is_streaming("c", True))
    store.dispatch(actions.upsert_entity("other", entity("m")))
    assert all(select(store.state, "c") is known for select, known in zip(names, before, strict=True))
