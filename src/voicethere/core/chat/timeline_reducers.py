"""The next state after each timeline action. Pure; the versions' rules are in `entities.merge`.

First arrival fixes the order; a snapshot that is applied brings its own.
"""

from __future__ import annotations

from immutables import Map
from msgspec.structs import replace

from voicethere.core.chat.entities import SUGGESTIONS_KIND, TimelineEntity, merge, same_entity
from voicethere.core.chat.normalize import distinct
from voicethere.core.chat.state import (
    EMPTY_TIMELINE,
    ChatState,
    ConversationTimeline,
    Slot,
    suggestion_items,
)
from voicethere.core.chat.timeline_actions import (
    AddEntity,
    ApplySnapshot,
    ClearConversation,
    ConsumeSuggestions,
    MergeSnapshot,
    RekeyEntity,
    UpsertEntity,
    UpsertSuggestions,
)


def add_entity(state: ChatState, action: AddEntity) -> ChatState:
    timeline = state.timeline.get(action.conv_id, EMPTY_TIMELINE)
    if action.entity.id in timeline.slots:
        return state
    return _put(state, action.conv_id, _upserted(timeline, action.entity))


def upsert_entity(state: ChatState, action: UpsertEntity) -> ChatState:
    conv_id, timelines = action.conv_id, state.timeline
    known = timelines.get(conv_id)
    timeline = _upserted(EMPTY_TIMELINE if known is None else known, action.entity)
    if timeline is known:
        return state
    return ChatState(state.chat_session, timelines.set(conv_id, timeline), state.chat_window)


def rekey_entity(state: ChatState, action: RekeyEntity) -> ChatState:
    timeline = state.timeline.get(action.conv_id, EMPTY_TIMELINE)
    source = timeline.slots.get(action.from_id)
    if source is None or action.from_id == action.to_id:
        return state
    target = timeline.slots.get(action.to_id)
    if target is None:
        slot = replace(source, entity=replace(source.entity, id=action.to_id))
    else:
        known, other = target.entity, source.entity
        entity = replace(
            known,
            created_at=known.created_at or other.created_at,
            updated_at=other.updated_at if known.updated_at is None else known.updated_at,
            version=other.version if known.version is None else known.version,
            props={**other.props, **known.props},
        )
        slot = replace(target, entity=entity)
    slots = timeline.slots.delete(action.from_id).set(action.to_id, slot)
    return _put(state, action.conv_id, ConversationTimeline(slots, timeline.end, timeline.arrivals))


def apply_snapshot(state: ChatState, action: ApplySnapshot) -> ChatState:
    timeline = state.timeline.get(action.conv_id, EMPTY_TIMELINE)
    found: dict[str, TimelineEntity] = {}
    for entity in action.entities:
        known = found.get(entity.id)
        found[entity.id] = entity if known is None else merge(known, entity)
    slots: dict[str, Slot] = {}
    arrivals = timeline.arrivals
    for position, entity in enumerate(found.values()):
        before = timeline.slots.get(entity.id)
        if before is None:
            slots[entity.id] = Slot(position, arrivals, entity)
            arrivals += 1
            continue
        if same_entity(before.entity, entity):
            entity = before.entity
        unchanged = before.position == position and before.entity is entity
        slots[entity.id] = before if unchanged else Slot(position, before.arrived, entity)
    known_slots = timeline.slots
    if len(slots) == len(known_slots) and all(known_slots.get(key) is slot for key, slot in slots.items()):
        # Nothing is new; an empty answer for a conversation that was unknown is still an answer.
        return _put(state, action.conv_id, timeline)
    return _put(state, action.conv_id, ConversationTimeline(Map(slots), len(slots), arrivals))


def merge_snapshot(state: ChatState, action: MergeSnapshot) -> ChatState:
    timeline = state.timeline.get(action.conv_id, EMPTY_TIMELINE)
    end, arrivals = timeline.end, timeline.arrivals
    touched: dict[str, Slot] = {}
    for entity in action.entities:
        before = timeline.slots.get(entity.id)
        known = touched.get(entity.id, before)
        if known is None:
            touched[entity.id] = Slot(end, arrivals, entity)
            end, arrivals = end + 1, arrivals + 1
            continue
        merged = merge(known.entity, entity)
        # Several reports of one entity may lead back to where it was.
        if before is not None and same_entity(before.entity, merged):
            touched[entity.id] = before
        else:
            touched[entity.id] = replace(known, entity=merged)
    changed = {key: slot for key, slot in touched.items() if timeline.slots.get(key) is not slot}
    if changed:
        timeline = ConversationTimeline(timeline.slots.update(changed), end, arrivals)
    return _put(state, action.conv_id, timeline)


def upsert_suggestions(state: ChatState, action: UpsertSuggestions) -> ChatState:
    timeline = state.timeline.get(action.conv_id, EMPTY_TIMELINE)
    slot = timeline.slots.get(action.entity_id)
    at = action.updated_at or 0
    known = TimelineEntity(action.entity_id, SUGGESTIONS_KIND, at) if slot is None else slot.entity
    before = suggestion_items(known)
    items = action.suggestions if action.replace else distinct((*before, *action.suggestions))
    props = {"source": action.source, "items": list(items), "consumedAt": None}
    said = {text.casefold() for text in before}
    again = action.version is not None and action.version == known.version
    if known.props and (not items or (again and all(text.casefold() in said for text in items))):
        # The same report once more (a gateway resends the latest): consumed suggestions stay consumed.
        props["consumedAt"] = known.props.get("consumedAt")
    created_at = at if slot is None else known.created_at
    entity = TimelineEntity(
        action.entity_id, SUGGESTIONS_KIND, created_at, action.updated_at, action.version, props
    )
    return _put(state, action.conv_id, _upserted(timeline, entity))


def consume_suggestions(state: ChatState, action: ConsumeSuggestions) -> ChatState:
    timeline = state.timeline.get(action.conv_id, EMPTY_TIMELINE)
    slot = timeline.slots.get(action.entity_id)
    if slot is None or slot.entity.kind != SUGGESTIONS_KIND:
        return state
    if slot.entity.props.get("consumedAt") is not None:
        return state
    entity = replace(slot.entity, props={**slot.entity.props, "consumedAt": action.at})
    slots = timeline.slots.set(action.entity_id, replace(slot, entity=entity))
    return _put(state, action.conv_id, ConversationTimeline(slots, timeline.end, timeline.arrivals))


def clear_conversation(state: ChatState, action: ClearConversation) -> ChatState:
    if action.conv_id not in state.timeline:
        return state
    return ChatState(state.chat_session, state.timeline.delete(action.conv_id), state.chat_window)


def _put(state: ChatState, conv_id: str, timeline: ConversationTimeline) -> ChatState:
    if state.timeline.get(conv_id) is timeline:
        return state
    return ChatState(state.chat_session, state.timeline.set(conv_id, timeline), state.chat_window)


def _upserted(timeline: ConversationTimeline, entity: TimelineEntity) -> ConversationTimeline:
    slots, entity_id = timeline.slots, entity.id
    known = slots.get(entity_id)
    if known is None:
        slot = Slot(timeline.end, timeline.arrivals, entity)
        return ConversationTimeline(slots.set(entity_id, slot), timeline.end + 1, timeline.arrivals + 1)
    before = known.entity
    merged = merge(before, entity)
    if merged is before:
        return timeline
    slot = Slot(known.position, known.arrived, merged)
    return ConversationTimeline(slots.set(entity_id, slot), timeline.end, timeline.arrivals)
