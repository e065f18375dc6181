"""Chat conversations and their timelines: functions on a connection.

What a change means is decided in `core.conversation`; here it is kept, once, whoever applies it. Prompts on
their way to a session are in `prompts`.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select

from voicethere.adapters.store import columns
from voicethere.adapters.store.projects import require_project
from voicethere.adapters.store.records import ConversationRecord, HeldSession, StoreConflict, Timeline
from voicethere.adapters.store.sessions import record_of as session_of
from voicethere.adapters.store.tables import IN_SESSION, conversation_entities, conversations, sessions
from voicethere.core.conversation import Author, FinishedStream, StoredEntity, conversation_id_problem

MAX_ISSUED_SECONDS = 366 * 24 * 3600

_props_decoder = msgspec.json.Decoder(dict[str, Any])
_finished_decoder = msgspec.json.Decoder(tuple[FinishedStream, ...])
_meta_decoder = msgspec.json.Decoder(dict[str, str])


def open_conversation(
    connection: Connection, now_ms: int, project_id: str, conv_id: str
) -> ConversationRecord:
    """The conversation of this id, made where there is none.

    Raises:
        LookupError: there is no such project.
        ValueError: a conversation cannot have this id.
    """
    make(connection, now_ms, project_id, conv_id)
    found = find_conversation(connection, project_id, conv_id)
    assert found is not None
    return found


def issue_conversation(
    connection: Connection, now_ms: int, project_id: str, *, seconds: float
) -> ConversationRecord:
    """A new conversation with an id of 128 random bits, which may be used for so long.

    Raises:
        LookupError: there is no such project.
        ValueError: `seconds` is not from 1 to `MAX_ISSUED_SECONDS`.
    """
    if not 1 <= seconds <= MAX_ISSUED_SECONDS:
        raise ValueError(f"an id is issued for 1 to {MAX_ISSUED_SECONDS} seconds, not {seconds:g}")
    conv_id = f"conv-{secrets.token_hex(16)}"
    if not make(connection, now_ms, project_id, conv_id, expires_at_ms=now_ms + round(seconds * 1000)):
        raise StoreConflict(f"the conversation id {conv_id!r} is taken")
    return open_conversation(connection, now_ms, project_id, conv_id)


def make(
    connection: Connection, now_ms: int, project_id: str, conv_id: str, *, expires_at_ms: int | None = None
) -> bool:
    """Make a conversation where there is none of this id; whether there was none. Raises as above."""
    problem = conversation_id_problem(conv_id)
    if problem is not None:
        raise ValueError(f"a conversation's id {problem}")
    require_project(connection, project_id)
    values = {
        "project_id": project_id,
        "id": conv_id,
        "version": 0,
        "seq": 0,
        "session_open": False,
        "outputs": 0,
        "previous_outputs": 0,
        "prompts": 0,
        "session_prompts": 0,
        "arrivals": 0,
        "content_bytes": 0,
        "issued": expires_at_ms is not None,
        "expires_at_ms": expires_at_ms,
        "created_at_ms": now_ms,
        "updated_at_ms": now_ms,
        "streams": "[]",
        "finished": "[]",
    }
    return (
        columns.count_inserted(
            connection, columns.insert(connection, conversations).values(values).on_conflict_do_nothing()
        )
        == 1
    )


def find_conversation(connection: Connection, project_id: str, conv_id: str) -> ConversationRecord | None:
    """The conversation of this id."""
    query = select(conversations).where(
        conversations.c.project_id == project_id, conversations.c.id == conv_id
    )
    row = connection.execute(query).first()
    return None if row is None else record_of(row)


def conversation_of_session(connection: Connection, session_id: str) -> ConversationRecord | None:
    """The conversation that the session is (or was) one of."""
    query = (
        select(conversations)
        .join(
            sessions,
            (sessions.c.project_id == conversations.c.project_id)
            & (sessions.c.conversation_id == conversations.c.id),
        )
        .where(sessions.c.id == session_id)
    )
    row = connection.execute(query).first()
    return None if row is None else record_of(row)


def timeline(connection: Connection, project_id: str, conv_id: str) -> Timeline:
    """All entities in the order of their arrival, and the version that they are as of."""
    version = connection.execute(
        select(conversations.c.version).where(
            conversations.c.project_id == project_id, conversations.c.id == conv_id
        )
    ).scalar_one_or_none()
    if version is None:
        return Timeline(version=0, entities=[])
    query = (
        select(conversation_entities)
        .where(
            conversation_entities.c.project_id == project_id,
            conversation_entities.c.conversation_id == conv_id,
        )
        .order_by(conversation_entities.c.position)
    )
    return Timeline(version=version, entities=[entity_of(row) for row in connection.execute(query)])


def latest_entities(
    connection: Connection, project_id: str, conv_id: str, *, limit: int, since: int
) -> list[StoredEntity]:
    """Those that were changed last, and after version `since`; in the order of their arrival."""
    newest = (
        select(conversation_entities.c.id)
        .where(
            conversation_entities.c.project_id == project_id,
            conversation_entities.c.conversation_id == conv_id,
            conversation_entities.c.version > since,
        )
        .order_by(conversation_entities.c.version.desc())
        .limit(limit)
    )
    # The ids first: sorting would otherwise carry every entity's content along.
    ids = list(connection.execute(newest).scalars())
    query = (
        select(conversation_entities)
        .where(
            conversation_entities.c.project_id == project_id,
            conversation_entities.c.conversation_id == conv_id,
            columns.among(connection, conversation_entities.c.id, ids),
        )
        .order_by(conversation_entities.c.position)
    )
    return [entity_of(row) for row in connection.execute(query)]


def sessions_to_reconcile(connection: Connection, limit: int) -> list[HeldSession]:
    """Current sessions of conversations that have ended or failed, or are deleted; the ended ones first."""
    over = sessions.c.ended_at_ms.is_not(None) | sessions.c.failed | sessions.c.id.is_(None)
    query = (
        select(
            conversations.c.project_id.label("of_project"),
            conversations.c.id.label("of_conversation"),
            conversations.c.session_id,
            sessions,
        )
        .select_from(conversations)
        .outerjoin(sessions, sessions.c.id == conversations.c.session_id)
        .where(IN_SESSION, over)
        .order_by(
            sessions.c.ended_at_ms.is_(None) & sessions.c.id.is_not(None), conversations.c.updated_at_ms
        )
        .limit(limit)
    )
    return [
        HeldSession(
            project_id=row.of_project,
            conversation_id=row.of_conversation,
            session_id=row.session_id,
            session=None if row.number is None else session_of(row),
        )
        for row in connection.execute(query)
    ]


def changed_since(connection: Connection, project_id: str, since_ms: int, *, limit: int) -> dict[str, int]:
    """The `seq` of conversations that were changed at or after this moment, by their ids; the newest ones."""
    query = (
        select(conversations.c.id, conversations.c.seq)
        .where(conversations.c.project_id == project_id, conversations.c.updated_at_ms >= since_ms)
        .order_by(conversations.c.updated_at_ms.desc())
        .limit(limit)
    )
    return {row.id: row.seq for row in connection.execute(query)}


def record_of(row: Row[Any]) -> ConversationRecord:
    """A row of all columns of `conversations`."""
    return ConversationRecord(
        project_id=row.project_id,
        id=row.id,
        version=row.version,
        seq=row.seq,
        session_id=row.session_id if row.session_open else None,
        last_session_id=row.session_id,
        outputs=row.outputs if row.session_open else 0,
        issued=row.issued,
        expires_at=columns.to_wire_or_none(row.expires_at_ms),
        created_at=columns.to_wire(row.created_at_ms),
        updated_at=columns.to_wire(row.updated_at_ms),
        finished=finished_of(row),
    )


def finished_of(row: Row[Any]) -> tuple[FinishedStream, ...]:
    """The streams of the conversation that are over and that no entity tells of."""
    return _finished_decoder.decode(row.finished)


def entity_of(row: Row[Any]) -> StoredEntity:
    """A row of all columns of `conversation_entities`."""
    return StoredEntity(
        id=row.id,
        kind=row.kind,
        author=Author(row.author),
        position=row.position,
        created_at_ms=row.created_at_ms,
        updated_at_ms=row.updated_at_ms,
        version=row.version,
        props=_props_decoder.decode(row.props),
        meta=_meta_decoder.decode(row.meta),
    )
