"""Prompts of conversations on their way to a session: functions on a connection.

A prompt is kept from the moment that its sender is told so until a session has taken it. While there is a
session it is that one's; otherwise the next one's that begins.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from voicethere.adapters.store import columns
from voicethere.adapters.store.conversations import record_of
from voicethere.adapters.store.records import ConversationRecord, PendingPrompt
from voicethere.adapters.store.tables import conversation_prompts, conversations

_ADD = insert(conversation_prompts)
_COUNT = (
    update(conversations)
    .where(conversations.c.project_id == bindparam("of_project"), conversations.c.id == bindparam("of_id"))
    .values(prompts=bindparam("new_prompts"), session_prompts=bindparam("new_session_prompts"))
)


def add(
    connection: Connection,
    now_ms: int,
    conversation: Row[Any],
    text: str,
) -> PendingPrompt:
    """Keep one more prompt of a conversation whose row is locked; it is the current session's, if any."""
    number = conversation.prompts + 1
    given = conversation.session_id if conversation.session_open else None
    session_number = None if given is None else conversation.session_prompts + 1
    connection.execute(
        _ADD,
        {
            "project_id": conversation.project_id,
            "conversation_id": conversation.id,
            "number": number,
            "session_id": given,
            "session_number": session_number,
            "attempts": 0 if given is None else 1,
            "created_at_ms": now_ms,
            "text": text,
        },
    )
    given_now = conversation.session_prompts if session_number is None else session_number
    connection.execute(
        _COUNT,
        {
            "of_project": conversation.project_id,
            "of_id": conversation.id,
            "new_prompts": number,
            "new_session_prompts": given_now,
        },
    )
    return PendingPrompt(
        number=number,
        text=text,
        session_id=given,
        session_number=session_number,
        attempts=0 if given is None else 1,
        created_at=columns.to_wire(now_ms),
    )


def pending(connection: Connection, project_id: str, conv_id: str) -> list[PendingPrompt]:
    """Those that no session has taken, in their order."""
    query = (
        select(conversation_prompts).where(*_of(project_id, conv_id)).order_by(conversation_prompts.c.number)
    )
    return [
        PendingPrompt(
            number=row.number,
            text=row.text,
            session_id=row.session_id,
            session_number=row.session_number,
            attempts=row.attempts,
            created_at=columns.to_wire(row.created_at_ms),
        )
        for row in connection.execute(query)
    ]


def count_pending(connection: Connection, project_id: str, conv_id: str) -> int:
    """How many no session has taken."""
    query = select(func.count()).select_from(conversation_prompts).where(*_of(project_id, conv_id))
    return connection.execute(query).scalar_one()


def give_all(connection: Connection, project_id: str, conv_id: str, session_id: str) -> int:
    """Give those that wait to a session that begins, numbered from 1 in their order; how many there were."""
    query = (
        select(conversation_prompts.c.number)
        .where(*_of(project_id, conv_id), conversation_prompts.c.session_id.is_(None))
        .order_by(conversation_prompts.c.number)
    )
    numbers = list(connection.execute(query).scalars())
    for session_number, number in enumerate(numbers, start=1):
        connection.execute(
            update(conversation_prompts)
            .where(*_of(project_id, conv_id), conversation_prompts.c.number == number)
            .values(
                session_id=session_id,
                session_number=session_number,
                attempts=conversation_prompts.c.attempts + 1,
            )
        )
    return len(numbers)


def taken(connection: Connection, session_id: str, up_to: int) -> int:
    """The session has taken its prompts up to and with this number; how many of them were pending."""
    return connection.execute(
        delete(conversation_prompts).where(
            conversation_prompts.c.session_id == session_id, conversation_prompts.c.session_number <= up_to
        )
    ).rowcount


def session_over(
    connection: Connection, project_id: str, conv_id: str, session_id: str, *, taken_up_to: int, keep: bool
) -> None:
    """The session takes no more prompts: what it has not taken is for the next one (`keep`), or dropped."""
    its = (*_of(project_id, conv_id), conversation_prompts.c.session_id == session_id)
    if keep:
        if taken_up_to:
            taken(connection, session_id, taken_up_to)
        # One that was at work for the user is no session that the prompt was given to in vain.
        in_vain = 0 if taken_up_to else 1
        connection.execute(
            update(conversation_prompts)
            .where(*its)
            .values(
                session_id=None,
                session_number=None,
                attempts=conversation_prompts.c.attempts - 1 + in_vain,
            )
        )
    else:
        connection.execute(delete(conversation_prompts).where(*its))


def give_up(connection: Connection, project_id: str, conv_id: str, sessions: int) -> int:
    """Drop those that no session has and that so many had; how many there were."""
    return connection.execute(
        delete(conversation_prompts).where(
            *_of(project_id, conv_id),
            conversation_prompts.c.session_id.is_(None),
            conversation_prompts.c.attempts >= sessions,
        )
    ).rowcount


def conversations_waiting(connection: Connection, before_ms: int, limit: int) -> list[ConversationRecord]:
    """Those with a prompt of before this moment that no session has taken; the longest waiting first."""
    waiting = (
        select(
            conversation_prompts.c.project_id,
            conversation_prompts.c.conversation_id,
            func.min(conversation_prompts.c.created_at_ms).label("since_ms"),
        )
        .where(conversation_prompts.c.created_at_ms < before_ms)
        .group_by(conversation_prompts.c.project_id, conversation_prompts.c.conversation_id)
        .subquery()
    )
    query = (
        select(conversations)
        .join(
            waiting,
            (waiting.c.project_id == conversations.c.project_id)
            & (waiting.c.conversation_id == conversations.c.id),
        )
        .order_by(waiting.c.since_ms)
        .limit(limit)
    )
    return [record_of(row) for row in connection.execute(query)]


def _of(project_id: str, conv_id: str) -> tuple[Any, Any]:
    return (
        conversation_prompts.c.project_id == project_id,
        conversation_prompts.c.conversation_id == conv_id,
    )
