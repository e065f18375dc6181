"""Changes of conversations, each applied once: many of them in one transaction. Functions on a connection.

The rows of the conversations are locked first, in one order for all; then everything that is needed is read
at once, `core.conversation` decides in memory, and what came of it is written at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, select

from voicethere.adapters.store import columns, prompts
from voicethere.adapters.store.conversation_statements import COUNTERS, statements
from voicethere.adapters.store.conversations import entity_of, finished_of
from voicethere.adapters.store.tables import conversation_entities
from voicethere.core.conversation import (
    MAX_ENTITIES,
    MAX_TIMELINE_BYTES,
    Applied,
    Composed,
    ConversationChange,
    ConversationState,
    OpenStream,
    SessionEnd,
    Skipped,
    StoredEntity,
    advance,
    placed,
)

Key = tuple[str, str]
"""`(project_id, conversation id)`."""
EntityKey = tuple[str, str, str]
"""The same, and the entity's id."""

_LOOKUP = 200
_ROOMY_BYTES = MAX_TIMELINE_BYTES * 7 // 8
_streams_decoder = msgspec.json.Decoder(tuple[OpenStream, ...])


class Held:
    """One conversation whose row is locked by this transaction: as it was, and as it becomes."""

    def __init__(self, row: Any) -> None:
        self.row = row
        self.state = ConversationState(
            **{name: getattr(row, name) for name in COUNTERS},
            streams=_streams_decoder.decode(row.streams),
            finished=finished_of(row),
        )
        self.known: dict[str, StoredEntity] = {}
        self.sizes: dict[str, int] = {}
        self.touched: dict[str, StoredEntity] = {}
        self.ended: SessionEnd | None = None
        self.ended_session_id: str | None = None
        self.prompts_taken = 0
        self._before = self.state

    @property
    def key(self) -> Key:
        return self.row.project_id, self.row.id

    @property
    def is_changed(self) -> bool:
        return self.state != self._before

    def apply(self, state: ConversationState, composed: Composed, session_id: str | None) -> Applied:
        """Take one change, whose place `state` counts already."""
        advanced = advance(state, self.known, composed, session_id)
        if state.session_open and not advanced.state.session_open:
            self.ended, self.ended_session_id = composed.session_end, state.session_id
        self.state = advanced.state
        self.known.update(advanced.entities)
        self.touched.update(advanced.entities)
        return advanced.applied


def apply_outputs(
    connection: Connection, now_ms: int, changes: Sequence[ConversationChange]
) -> list[Applied | Skipped]:
    """Apply each change once, in their order; the answers are in the same order.

    A change counts where its number is the next one of its session (`core.conversation.placed`); so whoever
    comes second, and whoever has missed one, changes nothing.
    """
    held = hold(connection, ((change.project_id, change.conv_id) for change in changes))
    load_entities(connection, held, named_by(held, changes))
    answers: list[Applied | Skipped] = []
    for change in changes:
        conversation = held.get((change.project_id, change.conv_id))
        if conversation is None:
            answers.append(Skipped(applied_up_to=None))
            continue
        place = placed(conversation.state, change.session_id, change.number)
        if isinstance(place, Skipped):
            answers.append(place)
            continue
        answers.append(conversation.apply(place, change.composed, change.session_id))
        if conversation.ended_session_id == change.session_id:
            conversation.prompts_taken = max(conversation.prompts_taken, change.prompts_taken)
    save(connection, now_ms, held.values())
    return answers


def hold(connection: Connection, keys: Iterable[Key]) -> dict[Key, Held]:
    """Lock the conversations of these keys that are there."""
    known = statements(connection)
    wanted = sorted(set(keys))
    found: dict[Key, Held] = {}
    for start in range(0, len(wanted), _LOOKUP):
        named = known.keys.parameters(wanted[start : start + _LOOKUP])
        for row in connection.execute(known.hold, named):
            conversation = Held(row)
            found[conversation.key] = conversation
    return found


def named_by(held: dict[Key, Held], changes: Sequence[ConversationChange]) -> set[EntityKey]:
    """The entities that the changes may touch."""
    wanted: set[EntityKey] = set()
    for change in changes:
        key = (change.project_id, change.conv_id)
        if key in held:
            wanted.update((*key, entity.id) for entity in change.composed.entities)
            if change.composed.ends_streams:
                wanted.update((*key, stream.id) for stream in held[key].state.streams)
    return wanted


def load_entities(connection: Connection, held: dict[Key, Held], wanted: set[EntityKey]) -> None:
    """Read these entities of conversations that are locked, where they are there."""
    known = statements(connection)
    ordered = sorted(wanted)
    for start in range(0, len(ordered), _LOOKUP):
        named = known.identities.parameters(ordered[start : start + _LOOKUP])
        for row in connection.execute(known.entities, named):
            conversation = held[row.project_id, row.conversation_id]
            conversation.known[row.id] = entity_of(row)
            conversation.sizes[row.id] = row.size_bytes


def save(connection: Connection, now_ms: int, held: Iterable[Held]) -> None:
    """Write what has changed of the conversations, and what their prompts come to."""
    changed = [conversation for conversation in held if conversation.is_changed]
    if not changed:
        return
    known = statements(connection)
    entities: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for conversation in changed:
        grown = 0
        for entity in conversation.touched.values():
            row = _entity_row(conversation.key, entity)
            grown += row["size_bytes"] - conversation.sizes.get(entity.id, 0)
            entities.append(row)
        content_bytes = conversation.row.content_bytes + grown
        rows.append(_conversation_row(conversation, now_ms, content_bytes))
    if entities:
        connection.execute(known.keep_entity, entities)
    for conversation, row in zip(changed, rows, strict=True):
        row["new_content_bytes"] = _with_room(connection, conversation, row["new_content_bytes"])
    connection.execute(known.keep, rows)
    for conversation in changed:
        if conversation.ended_session_id is not None:
            prompts.session_over(
                connection,
                *conversation.key,
                conversation.ended_session_id,
                taken_up_to=conversation.prompts_taken,
                keep=conversation.ended is SessionEnd.CLEAN,
            )


def _entity_row(key: Key, entity: StoredEntity) -> dict[str, Any]:
    props, meta = columns.to_json(entity.props), columns.to_json(entity.meta)
    return {
        "project_id": key[0],
        "conversation_id": key[1],
        "id": entity.id,
        "kind": entity.kind,
        "author": entity.author.value,
        "position": entity.position,
        "version": entity.version,
        "created_at_ms": entity.created_at_ms,
        "updated_at_ms": entity.updated_at_ms,
        "size_bytes": len(props.encode()) + len(meta.encode()),
        "meta": meta,
        "props": props,
    }


def _conversation_row(conversation: Held, now_ms: int, content_bytes: int) -> dict[str, Any]:
    state = conversation.state
    row: dict[str, Any] = {f"new_{name}": getattr(state, name) for name in COUNTERS}
    return row | {
        "of_project": conversation.key[0],
        "of_id": conversation.key[1],
        "new_streams": columns.to_json(state.streams),
        "new_finished": columns.to_json(state.finished),
        "new_content_bytes": content_bytes,
        "new_updated_at_ms": max(now_ms, conversation.row.updated_at_ms),
    }


def _with_room(connection: Connection, conversation: Held, content_bytes: int) -> int:
    """Delete the oldest entities where there are too many, or too much of them; how many bytes are left."""
    arrivals = conversation.state.arrivals
    if arrivals > max(MAX_ENTITIES, conversation.row.arrivals):
        content_bytes -= _delete_up_to(connection, conversation.key, arrivals - MAX_ENTITIES)
    if content_bytes <= MAX_TIMELINE_BYTES:
        return content_bytes
    of_it = conversation_entities.c.size_bytes
    content_bytes = connection.execute(
        select(func.coalesce(func.sum(of_it), 0)).where(*_of(conversation.key))
    ).scalar_one()
    # Some room beyond what is needed now, or the next change would have to look again.
    excess, last = content_bytes - _ROOMY_BYTES, None
    query = (
        select(conversation_entities.c.position, of_it)
        .where(*_of(conversation.key), conversation_entities.c.position < arrivals)
        .order_by(conversation_entities.c.position)
    )
    for position, size_bytes in connection.execute(query):
        if excess <= 0:
            break
        last = position
        excess -= size_bytes
    return (
        content_bytes if last is None else content_bytes - _delete_up_to(connection, conversation.key, last)
    )


def _delete_up_to(connection: Connection, key: Key, position: int) -> int:
    sizes = connection.execute(
        delete(conversation_entities)
        .where(*_of(key), conversation_entities.c.position <= position)
        .returning(conversation_entities.c.size_bytes)
    ).scalars()
    return sum(sizes)


def _of(key: Key) -> tuple[Any, Any]:
    return (
        conversation_entities.c.project_id == key[0],
        conversation_entities.c.conversation_id == key[1],
    )
