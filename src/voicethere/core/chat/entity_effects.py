"""What a gateway's entities do to the timeline, and those of them that are messages to the streams.

Knows the rule for messages without text and what a snapshot says of streams. How two reports of one entity
merge is in `entities`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from voicethere.core.chat import actions, checks, selectors
from voicethere.core.chat.entities import TimelineEntity, entity_of
from voicethere.core.chat.errors import ChatErrorKind, ChatErrorStage
from voicethere.core.chat.sem_context import SemContext
from voicethere.core.chat.stream_effects import end_stream, start_stream
from voicethere.core.chat.timeline_actions import AddEntity, ApplySnapshot, UpsertEntity
from voicethere.errors.bounds import cut_end
from voicethere.wire.sem import (
    AgentMode,
    DebuggerPause,
    Log,
    SemEvent,
    SnapshotReading,
    TimelineEntityData,
    TimelineUpsert,
    UndecodableSem,
    whole_number,
)

MESSAGE_KIND = "message"
LOG_KIND = "log"
AGENT_MODE_KIND = "agent_mode"
DEBUGGER_PAUSE_KIND = "debugger_pause"
_CONTENT = "content"
_MOST_PROBLEMS = 20


class SnapshotApplied(NamedTuple):
    """What became of a snapshot: entities that are in the timeline now, and bad ones that were left out."""

    entities: int
    refused: int


def timeline_upsert(context: SemContext, event: SemEvent) -> None:
    """`timeline.upsert`: the entity is merged; a message that is not the user's starts or ends its stream.

    Raises:
        UndecodableSem: the entity is out of bounds (a very long id, an impossible time).
    """
    data: TimelineUpsert = event.data
    try:
        incoming = _entity(data.entity, whole_number(data.version))
    except (TypeError, ValueError) as error:
        raise UndecodableSem(f"the data of 'timeline.upsert' is wrong: {cut_end(str(error), 300)}") from error
    known = _known(context, incoming.id)
    if known is not None and _is_outdated(incoming, known):
        return
    shown = _as_shown(incoming, known)
    if shown is not None:
        context.store.dispatch(UpsertEntity(context.conv_id, shown))
        incoming = _known(context, incoming.id) or incoming
    _follow_stream(context, incoming)


def log(context: SemContext, event: SemEvent) -> None:
    """`log`: an entity named by the event is added; a known id is left alone."""
    data: Log = event.data
    props = {"level": data.level, "message": data.message, "fields": data.fields}
    entity = _named_by(event, LOG_KIND, props, context.now_ms())
    context.store.dispatch(AddEntity(context.conv_id, entity))


def agent_mode(context: SemContext, event: SemEvent) -> None:
    """`agent.mode`: an entity named by the event."""
    data: AgentMode = event.data
    props = {"title": data.title, "data": data.data}
    entity = _named_by(event, AGENT_MODE_KIND, props, context.now_ms())
    context.store.dispatch(UpsertEntity(context.conv_id, entity))


def debugger_pause(context: SemContext, event: SemEvent) -> None:
    """`debugger.pause`: an entity named by the event; `deadlineMs` is a number in it."""
    data: DebuggerPause = event.data
    props = {
        "pauseId": data.pause_id,
        "phase": data.phase,
        "summary": data.summary,
        "deadlineMs": whole_number(data.deadline_ms),
        "extra": data.extra,
    }
    entity = _named_by(event, DEBUGGER_PAUSE_KIND, props, context.now_ms())
    context.store.dispatch(UpsertEntity(context.conv_id, entity))


def apply_snapshot(context: SemContext, reading: SnapshotReading) -> SnapshotApplied:
    """Replace what the gateway told before by a snapshot, as it is; its messages start and end their streams.

    What this client alone has stays (see `keeping_own`). Bad entities are left out and recorded, all of them
    in one `hydrate_error`.
    """
    snapshot = reading.snapshot
    version = whole_number(snapshot.version)
    entities: list[TimelineEntity] = []
    problems = list(reading.problems)
    refused = reading.refused
    for data in snapshot.entities:
        try:
            entities.append(_entity(data, version))
        except (TypeError, ValueError) as error:
            refused += 1
            if len(problems) < _MOST_PROBLEMS:
                problems.append(f"the entity {cut_end(data.id, 60)!r}: {cut_end(str(error), 300)}")
    shown = keeping_own(selectors.select_timeline_entities(context.store.state, context.conv_id), entities)
    context.store.dispatch(ApplySnapshot(context.conv_id, shown))
    for entity in entities:
        _follow_stream(context, entity)
    if refused:
        context.store.dispatch(
            actions.push_error(
                context.conv_id,
                kind=ChatErrorKind.HYDRATE_ERROR,
                stage=ChatErrorStage.HYDRATE,
                message=f"{refused} of the snapshot's {refused + len(entities)} entities could not be read",
                source="apply_snapshot",
                details={"refused": refused, "problems": problems},
            )
        )
    return SnapshotApplied(len(entities), refused)


def keeping_own(
    known: Iterable[TimelineEntity], snapshot: Iterable[TimelineEntity]
) -> tuple[TimelineEntity, ...]:
    """A snapshot's entities as they are, each followed by the client's own that came behind it before.

    The client's own have no version: starters, errors that it mirrors, what it made of `log` and the like.
    No gateway has them, so that every reconnect would cost them.
    """
    entities = tuple(snapshot)
    ids = {entity.id for entity in entities}
    own: dict[str | None, list[TimelineEntity]] = {}
    before: str | None = None
    for entity in known:
        if entity.id in ids:
            before = entity.id
        elif entity.version is None:
            own.setdefault(before, []).append(entity)
    if not own:
        return entities
    shown = own.pop(None, [])
    for entity in entities:
        shown.append(entity)
        shown.extend(own.pop(entity.id, ()))
    return tuple(shown)


def _entity(data: TimelineEntityData, version: int) -> TimelineEntity:
    return checks.decoded_entity(entity_of(data, version))


def _known(context: SemContext, entity_id: str) -> TimelineEntity | None:
    return selectors.select_timeline_entity_by_id(context.store.state, context.conv_id, entity_id)


def _is_outdated(incoming: TimelineEntity, known: TimelineEntity) -> bool:
    return incoming.version is not None and known.version is not None and incoming.version < known.version


def _as_shown(incoming: TimelineEntity, known: TimelineEntity | None) -> TimelineEntity | None:
    # A message without text is not shown; of one that is shown already, the known text stays.
    if incoming.kind != MESSAGE_KIND or _has_text(incoming.props):
        return incoming
    if known is None or known.kind != MESSAGE_KIND:
        return None
    if not _has_text(known.props):
        return incoming
    return replace(
        incoming, props={name: value for name, value in incoming.props.items() if name != _CONTENT}
    )


def _has_text(props: Mapping[str, Any]) -> bool:
    content = props.get(_CONTENT)
    return isinstance(content, str) and bool(content.strip())


def _follow_stream(context: SemContext, entity: TimelineEntity) -> None:
    if entity.kind != MESSAGE_KIND or entity.is_of_user:
        return
    if entity.props.get("streaming") is True:
        start_stream(context, entity.id)
    else:
        end_stream(context, entity.id)


def _named_by(event: SemEvent, kind: str, props: dict[str, Any], now_ms: int) -> TimelineEntity:
    try:
        return checks.entity(TimelineEntity(event.id, kind, now_ms, props=props))
    except (TypeError, ValueError) as error:
        raise UndecodableSem(f"the event {event.type!r} is wrong: {cut_end(str(error), 300)}") from error
