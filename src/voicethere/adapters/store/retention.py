"""What is deleted because it is too old or too much: many short transactions, one after the other.

Each deletes at most so many rows, the oldest first, and finds them in an index. Several processes may run
the same at once: rows that another one is deleting are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, Table, delete, select, tuple_

from voicethere.adapters.store.database import Database
from voicethere.adapters.store.records import RetentionDone
from voicethere.adapters.store.tables import (
    conversation_entities,
    conversations,
    dead_letters,
    error_suppressions,
    projects,
    session_errors,
    sessions,
)
from voicethere.wire.settings import ProjectSettings

DAY_MS = 24 * 3600 * 1000
_STRIDE = 50_000
_FOREVER_MS = 2**62

Work = Callable[..., int]
Position = tuple[int, str]
"""`(occurred_at_ms, id)` of an error."""


class ProjectRule(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how many errors one project keeps; 0: all of them."""

    project_id: str
    days: int
    errors: int


async def apply_retention(
    database: Database, now_ms: int, *, default_days: int, default_errors: int, batch: int
) -> RetentionDone:
    """One round: at most `batch` rows of each kind and project. 0 keeps for ever."""
    if batch < 1 or default_days < 0 or default_errors < 0:
        raise ValueError("retention needs a batch of at least 1, and days and errors of at least 0")
    errors: list[int] = []
    ended: list[int] = []
    counted: list[int] = []
    entities: list[int] = []
    chats: list[int] = []
    rules = await database.read(
        lambda c: project_rules(c, default_days=default_days, default_errors=default_errors)
    )
    oldest_ms = now_ms - default_days * DAY_MS

    async def delete_(work: Work, *arguments: Any) -> int:
        return await database.write(lambda c: work(c, *arguments, batch))

    for rule in rules:
        if rule.days:
            before_ms = now_ms - rule.days * DAY_MS
            errors.append(await delete_(delete_errors_before, rule.project_id, before_ms))
            ended.append(await delete_(delete_sessions_before, rule.project_id, before_ms))
            entities.append(await delete_(delete_entities_before, rule.project_id, before_ms))
            chats.append(await delete_(delete_conversations_before, rule.project_id, before_ms))
        chats.append(await delete_(delete_unused_conversations, rule.project_id, now_ms))
        if rule.errors:
            last = await _last_to_keep(database, rule)
            if last is not None:
                errors.append(await delete_(delete_errors_behind, rule.project_id, last))
        if default_days:
            counted.append(await delete_(delete_suppressions_before, rule.project_id, oldest_ms))
    letters = await delete_(delete_dead_letters_before, oldest_ms) if default_days else 0
    return RetentionDone(
        deleted_errors=sum(errors),
        deleted_sessions=sum(ended),
        deleted_dead_letters=letters,
        deleted_conversations=sum(chats),
        more=max([*errors, *ended, *counted, *entities, *chats, letters]) >= batch,
    )


async def empty_project(database: Database, project_id: str, *, batch: int = 5000) -> None:
    """Delete a project's errors, sessions and conversations, in short transactions: what is left goes in a
    moment."""
    for work in (
        delete_errors_before,
        delete_suppressions_before,
        delete_all_sessions_before,
        delete_all_entities_before,
        delete_all_conversations_before,
    ):
        while await database.write(lambda c: work(c, project_id, _FOREVER_MS, batch)) >= batch:  # noqa: B023
            pass


async def _last_to_keep(database: Database, rule: ProjectRule) -> Position | None:
    """The oldest of the errors that the project keeps; None where it has no more than those."""
    last: Position | None = None
    project_id = rule.project_id
    for stride in strides(rule.errors):
        after = last
        last = await database.read(lambda c: older_by(c, project_id, after=after, count=stride))  # noqa: B023
        if last is None:
            return None
    return last


def project_rules(connection: Connection, *, default_days: int, default_errors: int) -> Sequence[ProjectRule]:
    """One rule of every project: its own settings, or the defaults where those are 0."""
    decoder = msgspec.json.Decoder(ProjectSettings)
    rules = []
    for project_id, text in connection.execute(select(projects.c.id, projects.c.project_settings)):
        own = ProjectSettings() if text is None else decoder.decode(text)
        rules.append(
            ProjectRule(
                project_id=project_id,
                days=own.retention_days or default_days,
                errors=own.retention_errors or default_errors,
            )
        )
    return rules


def older_by(
    connection: Connection, project_id: str, *, after: Position | None, count: int
) -> Position | None:
    """The error that is `count` rows older than `after` (than the newest, counted from 1, without `after`).

    At most `_STRIDE` rows are passed at once: see `strides`. None where there are not so many.
    """
    position = tuple_(session_errors.c.occurred_at_ms, session_errors.c.id)
    query = (
        select(session_errors.c.occurred_at_ms, session_errors.c.id)
        .where(session_errors.c.project_id == project_id)
        .order_by(session_errors.c.occurred_at_ms.desc(), session_errors.c.id.desc())
        .offset(count - 1)
        .limit(1)
    )
    if after is not None:
        query = query.where(position < tuple_(*after))
    row = connection.execute(query).first()
    return None if row is None else (row.occurred_at_ms, row.id)


def strides(count: int) -> list[int]:
    """`count` as steps that a database takes in a moment each."""
    whole, rest = divmod(count, _STRIDE)
    return [_STRIDE] * whole + ([rest] if rest else [])


def delete_errors_before(connection: Connection, project_id: str, before_ms: int, limit: int) -> int:
    """Errors that occurred before this moment; how many were deleted."""
    return _delete_oldest(
        connection,
        session_errors,
        session_errors.c.id,
        select(session_errors.c.id)
        .where(session_errors.c.project_id == project_id, session_errors.c.occurred_at_ms < before_ms)
        .order_by(session_errors.c.occurred_at_ms, session_errors.c.id),
        limit,
    )


def delete_errors_behind(connection: Connection, project_id: str, last: Position, limit: int) -> int:
    """Errors that are older than the last one to keep; how many were deleted."""
    position = tuple_(session_errors.c.occurred_at_ms, session_errors.c.id)
    return _delete_oldest(
        connection,
        session_errors,
        session_errors.c.id,
        select(session_errors.c.id)
        .where(session_errors.c.project_id == project_id, position < tuple_(*last))
        .order_by(session_errors.c.occurred_at_ms, session_errors.c.id),
        limit,
    )


def delete_sessions_before(connection: Connection, project_id: str, before_ms: int, limit: int) -> int:
    """Sessions that ended before this moment; how many were deleted."""
    return _delete_oldest(
        connection,
        sessions,
        sessions.c.number,
        select(sessions.c.number)
        .where(
            sessions.c.project_id == project_id,
            sessions.c.created_at_ms < before_ms,  # follows from the next one, and the index knows it
            sessions.c.ended_at_ms < before_ms,
        )
        .order_by(sessions.c.created_at_ms, sessions.c.number),
        limit,
    )


def delete_all_sessions_before(connection: Connection, project_id: str, before_ms: int, limit: int) -> int:
    """Sessions that were made before this moment, over or not; how many were deleted."""
    return _delete_oldest(
        connection,
        sessions,
        sessions.c.number,
        select(sessions.c.number)
        .where(sessions.c.project_id == project_id, sessions.c.created_at_ms < before_ms)
        .order_by(sessions.c.created_at_ms, sessions.c.number),
        limit,
    )


def delete_suppressions_before(connection: Connection, project_id: str, before_ms: int, limit: int) -> int:
    """Suppressions whose last error occurred before this moment; how many were deleted."""
    return _delete_oldest(
        connection,
        error_suppressions,
        error_suppressions.c.id,
        select(error_suppressions.c.id)
        .where(error_suppressions.c.project_id == project_id, error_suppressions.c.last_at_ms < before_ms)
        .order_by(error_suppressions.c.last_at_ms, error_suppressions.c.id),
        limit,
    )


def delete_entities_before(connection: Connection, project_id: str, before_ms: int, limit: int) -> int:
    """Entities of conversations that nothing has touched since this moment; how many were deleted.

    They go ahead of their conversation: a long one would not fit into a short transaction.
    """
    return _delete_entities(connection, _untouched(project_id, before_ms), limit)


def delete_all_entities_before(connection: Connection, project_id: str, before_ms: int, limit: int) -> int:
    """The same, in a session or not."""
    return _delete_entities(connection, _older(project_id, before_ms), limit)


def delete_conversations_before(connection: Connection, project_id: str, before_ms: int, limit: int) -> int:
    """Conversations without entities that nothing has touched since this moment; how many were deleted.

    One that has a session now is not old: the gateway ends that first.
    """
    return _delete_conversations(connection, _untouched(project_id, before_ms), limit)


def delete_all_conversations_before(
    connection: Connection, project_id: str, before_ms: int, limit: int
) -> int:
    """The same, in a session or not."""
    return _delete_conversations(connection, _older(project_id, before_ms), limit)


def delete_unused_conversations(connection: Connection, project_id: str, now_ms: int, limit: int) -> int:
    """Conversations whose ids were issued, and not used in time; how many were deleted."""
    unused = (
        (conversations.c.project_id == project_id)
        & (conversations.c.expires_at_ms < now_ms)
        & (conversations.c.arrivals == 0)
        & conversations.c.session_open.is_(False)
    )
    return _delete_conversations(connection, unused, limit)


def _older(project_id: str, before_ms: int) -> ColumnElement[bool]:
    return (conversations.c.project_id == project_id) & (conversations.c.updated_at_ms < before_ms)


def _untouched(project_id: str, before_ms: int) -> ColumnElement[bool]:
    return _older(project_id, before_ms) & conversations.c.session_open.is_(False)


_ENTITY = (
    conversation_entities.c.project_id,
    conversation_entities.c.conversation_id,
    conversation_entities.c.id,
)


def _delete_entities(connection: Connection, old: ColumnElement[bool], limit: int) -> int:
    return _delete_oldest(
        connection,
        conversation_entities,
        tuple_(*_ENTITY),
        select(*_ENTITY)
        .join(
            conversations,
            (conversations.c.project_id == conversation_entities.c.project_id)
            & (conversations.c.id == conversation_entities.c.conversation_id),
        )
        .where(old)
        .order_by(conversations.c.updated_at_ms, conversation_entities.c.position),
        limit,
    )


def _delete_conversations(connection: Connection, old: ColumnElement[bool], limit: int) -> int:
    has_entities = (
        select(conversation_entities.c.id)
        .where(
            conversation_entities.c.project_id == conversations.c.project_id,
            conversation_entities.c.conversation_id == conversations.c.id,
        )
        .exists()
    )
    return _delete_oldest(
        connection,
        conversations,
        tuple_(conversations.c.project_id, conversations.c.id),
        select(conversations.c.project_id, conversations.c.id)
        .where(old, ~has_entities)
        .order_by(conversations.c.updated_at_ms),
        limit,
    )


def delete_dead_letters_before(connection: Connection, before_ms: int, limit: int) -> int:
    """Dead letters that were buried before this moment; how many were deleted."""
    return _delete_oldest(
        connection,
        dead_letters,
        dead_letters.c.number,
        select(dead_letters.c.number)
        .where(dead_letters.c.created_at_ms < before_ms)
        .order_by(dead_letters.c.created_at_ms),
        limit,
    )


def _delete_oldest(
    connection: Connection,
    table: Table,
    key: ColumnElement[Any],
    oldest: Select[Any],
    limit: int,
) -> int:
    chosen = oldest.limit(limit).with_for_update(skip_locked=True)
    if connection.dialect.name == "postgresql":
        # In front of the deletion, so that no plan asks it more than once.
        chosen = select(chosen.cte("chosen"))
    return connection.execute(delete(table).where(key.in_(chosen))).rowcount
