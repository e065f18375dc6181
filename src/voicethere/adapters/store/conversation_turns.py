"""What a user's prompt and the beginning of a session do to a conversation: functions on a connection.

Locks are taken in the order projects, conversations, everything else: a project that is deleted meanwhile
waits, or takes all of it along.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select, update

from voicethere.adapters.store import batch, conversations, prompts, sessions
from voicethere.adapters.store.conversation_changes import hold, load_entities, save
from voicethere.adapters.store.records import Accepted, SessionRecord, TooManyPrompts
from voicethere.adapters.store.tables import conversations as table
from voicethere.core.conversation import (
    MAX_PENDING_PROMPTS,
    MAX_PROMPT_SESSIONS,
    Applied,
    Composed,
    prompt_problem,
)
from voicethere.errors.records import ErrorRecord
from voicethere.wire.queue import ErrorItem


class _Done(Exception):
    """Another gateway was first: what was made for nothing goes again."""


def accept_prompt(
    connection: Connection, now_ms: int, project_id: str, conv_id: str, text: str, echo: Composed
) -> Accepted:
    """Keep a prompt, and its echo in the timeline; the conversation is made where there is none.

    Raises:
        LookupError: there is no such project.
        ValueError: a prompt or a conversation cannot be so; the words say why.
        TooManyPrompts: its session does not take them.
    """
    problem = prompt_problem(text)
    if problem is not None:
        raise ValueError(f"a prompt {problem}")
    held = hold(connection, [(project_id, conv_id)])
    if not held:
        conversations.make(connection, now_ms, project_id, conv_id)
        held = hold(connection, [(project_id, conv_id)])
    (conversation,) = held.values()
    if prompts.count_pending(connection, project_id, conv_id) >= MAX_PENDING_PROMPTS:
        raise TooManyPrompts(
            f"{MAX_PENDING_PROMPTS} prompts of this conversation wait already: wait for an answer"
        )
    load_entities(connection, held, {(project_id, conv_id, entity.id) for entity in echo.entities})
    applied = conversation.apply(conversation.state, echo, None)
    save(connection, now_ms, [conversation])
    prompt = prompts.add(connection, now_ms, conversation.row, text)
    return Accepted(version=applied.first_version, seq=applied.first_seq, prompt=prompt)


def begin_session(
    connection: Connection,
    now_ms: int,
    project_id: str,
    conv_id: str,
    *,
    session_id: str,
    customer_context: dict[str, Any] | None,
    wait_for_capacity: bool,
) -> SessionRecord | None:
    """A session for a conversation that has none, with the prompts that wait; None where it has one.

    Raises:
        StoreConflict: the session id is taken.
    """
    mine = (table.c.project_id == project_id) & (table.c.id == conv_id)
    free = mine & table.c.session_open.is_(False)
    if connection.execute(select(table.c.id).where(free)).first() is None:
        return None
    try:
        with connection.begin_nested():
            # Before the conversation is locked: sessions get their numbers under a lock that comes first.
            record = sessions.create_session(
                connection,
                now_ms,
                session_id=session_id,
                project_id=project_id,
                build_id=None,
                customer_context=customer_context,
                idempotency_key=None,
                wait_for_capacity=wait_for_capacity,
                conversation_id=conv_id,
            )
            begun = connection.execute(
                update(table)
                .where(free)
                .values(
                    previous_session_id=table.c.session_id,
                    previous_outputs=table.c.outputs,
                    session_id=session_id,
                    session_open=True,
                    outputs=0,
                    session_prompts=0,
                    updated_at_ms=now_ms,
                )
            ).rowcount
            if not begun:
                raise _Done
    except _Done:
        return None
    given = prompts.give_all(connection, project_id, conv_id, session_id)
    connection.execute(update(table).where(mine).values(session_prompts=given))
    return record


def give_up_prompts(
    connection: Connection, now_ms: int, project_id: str, conv_id: str, record: ErrorRecord, told: Composed
) -> Applied | None:
    """Drop the prompts that `MAX_PROMPT_SESSIONS` sessions have ended before; store why, and tell it.

    `record` is of the last of those sessions, `told` what it means in the timeline. None where there is no
    such prompt (any more).
    """
    try:
        with connection.begin_nested():
            # Before the conversation is locked: it looks at the project.
            batch.commit_batch(connection, now_ms, [ErrorItem(record=record)], [])
            held = hold(connection, [(project_id, conv_id)])
            if not held or not prompts.give_up(connection, project_id, conv_id, MAX_PROMPT_SESSIONS):
                raise _Done
    except _Done:
        return None
    (conversation,) = held.values()
    load_entities(connection, held, {(project_id, conv_id, entity.id) for entity in told.entities})
    applied = conversation.apply(conversation.state, told, None)
    save(connection, now_ms, [conversation])
    return applied
