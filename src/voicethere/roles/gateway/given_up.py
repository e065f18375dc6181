"""What is told of a prompt that one session after the other has ended before it took it.

An agent may end its sessions as they begin: nobody would ever answer, and sessions would be begun for ever.
Stores and composes; who sends it is the caller's business.
"""

from __future__ import annotations

import uuid

import structlog

from voicethere.adapters.store.store import Store
from voicethere.core.conversation import MAX_PROMPT_SESSIONS, compose_failures, number
from voicethere.core.ports import Clock
from voicethere.errors import SessionErrorCode, make_record
from voicethere.roles.gateway.here import Key
from voicethere.roles.gateway.outputs import Stored

_log = structlog.get_logger(__name__)


async def give_up_prompts(store: Store, clock: Clock, key: Key) -> Stored | None:
    """Drop the conversation's prompts that `MAX_PROMPT_SESSIONS` sessions had, and say so: as an error of the
    last of these sessions, with a row of its own. None where another gateway has done it.

    Raises:
        StoreUnavailable: the database is away.
    """
    project_id, conv_id = key
    conversation = await store.find_conversation(project_id, conv_id)
    if conversation is None or conversation.last_session_id is None:
        return None
    session = await store.get_session(conversation.last_session_id)
    ended_as = None if session is None else session.end_reason
    now = clock.now()
    record = make_record(
        f"{MAX_PROMPT_SESSIONS} sessions of the conversation were begun for a prompt, and each ended before "
        f"it took it, the last as {ended_as or 'unknown'}: does the agent end its sessions as they begin?",
        code=SessionErrorCode.RUNNER_INTERNAL,
        error_id=uuid.uuid4().hex,
        session_id=conversation.last_session_id,
        project_id=project_id,
        build_id=None if session is None else session.build_id,
        occurred_at=now,
    )
    told = compose_failures(
        [(record.id, record.envelope(with_stack=False))], round(now * 1000), session_end=None
    )
    applied = await store.give_up_prompts(project_id, conv_id, record, told)
    if applied is None:
        return None
    _log.warning(
        "prompts_given_up",
        project_id=project_id,
        conversation_id=conv_id,
        session_id=conversation.last_session_id,
        error_id=record.id,
    )
    return Stored(
        key=key,
        session_id=conversation.last_session_id,
        first_seq=applied.first_seq,
        frames=[frame.decode() for frame in number(conv_id, told, applied)],
    )
