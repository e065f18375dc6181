"""What an output of a session means on the wire of the chat: frames and changes of entities. Pure.

Knows sem-chat's rules for a sender. It knows neither numbers (`advance`) nor what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from voicethere.core.conversation.limits import MAX_PROPS_BYTES
from voicethere.core.conversation.passed import compose_passed
from voicethere.core.conversation.values import (
    Author,
    Composed,
    EntityChange,
    FrameDraft,
    SessionEnd,
    StreamStep,
)
from voicethere.errors.bounds import cut_end
from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.control_channel import EndReason
from voicethere.wire.relay import (
    ChatBody,
    ChatClosed,
    ChatFailure,
    ChatMessage,
    ChatPassed,
    ChatStreamEnd,
    ChatStreamStart,
    ChatStreamText,
)
from voicethere.wire.sem import LlmDelta, LlmEnd, LlmStart, SemEvent

_ROLE = "assistant"
_MAX_TEXT_BYTES = MAX_PROPS_BYTES - 4096
"""Of a message's text as JSON: the rest is for the properties beside it."""
_FAILED = frozenset({EndReason.AGENT_ERROR, EndReason.ERROR})


def compose(body: ChatBody, now_ms: int) -> Composed:
    """What one output of a session means; `now_ms` is the time in epoch milliseconds.

    sem-chat: "Text is shown by `timeline.upsert` alone", "use one id for a reply's `llm.*` frames and its
    entity", "sends the agent's message with its full `content` in every upsert".
    """
    match body:
        case ChatMessage(speech_id=speech_id, text=text):
            if not text.strip():
                return Composed(at_ms=now_ms)
            entity = _message(speech_id, _ROLE, text, now_ms, streaming=False)
            return Composed(at_ms=now_ms, entities=(entity,), frames=(_upsert(entity, 0),))
        case ChatStreamStart(speech_id=speech_id):
            start = SemEvent(type="llm.start", id=speech_id, data=LlmStart(id=speech_id, role=_ROLE))
            return _spoken(start, "", now_ms, streaming=True)
        case ChatStreamText(speech_id=speech_id, delta=delta, cumulative=cumulative):
            text = _bounded(cumulative)
            data = LlmDelta(id=speech_id, delta=_bounded(delta), cumulative=text)
            return _spoken(SemEvent(type="llm.delta", id=speech_id, data=data), text, now_ms, streaming=True)
        case ChatStreamEnd(speech_id=speech_id, text=text):
            text = _bounded(text)
            final = SemEvent(type="llm.final", id=speech_id, data=LlmEnd(id=speech_id, text=text))
            return _spoken(final, text, now_ms, streaming=False)
        case ChatPassed(payload=payload):
            return compose_passed(payload, now_ms)
        case ChatFailure(error_id=error_id, envelope=envelope):
            return compose_failures(
                [(error_id, envelope)],
                now_ms,
                # A session tells exactly one error that is not recoverable: the one that ends it.
                session_end=None if envelope.recoverable else _end_by(envelope.code),
            )
        case ChatClosed(end_reason=end_reason):
            return compose_end(
                now_ms, SessionEnd.CLEAN if ends_cleanly(end_reason, failed=False) else SessionEnd.FAILED
            )


def compose_prompt(text: str, message_id: str, now_ms: int) -> Composed:
    """The echo of a user's prompt, as a message with an id that nothing else has.

    sem-chat: "echoes each accepted prompt as a `role: "user"` message before anything of the agent's".
    """
    entity = _message(message_id, "user", text, now_ms, streaming=False)
    return Composed(at_ms=now_ms, entities=(entity,), frames=(_upsert(entity, 0),))


def compose_failures(
    failures: Sequence[tuple[str, SessionErrorEnvelope]], now_ms: int, *, session_end: SessionEnd | None
) -> Composed:
    """Errors `(id of the row, envelope)`, oldest first; one that the timeline has already is not told again.

    sem-chat: "End every stream before a `session.error`", "An error is a `session.error` frame and a
    `timeline.upsert` of kind `error` whose id is the error row's id".
    """
    entities = tuple(_error(error_id, envelope, now_ms) for error_id, envelope in failures)
    frames: list[FrameDraft] = []
    for index, (error_id, envelope) in enumerate(failures):
        event = SemEvent(type="session.error", id=error_id, data=envelope)
        frames += [FrameDraft(event=event, entity=index), _upsert(entities[index], index)]
    return Composed(
        at_ms=now_ms, entities=entities, frames=tuple(frames), ends_streams=True, session_end=session_end
    )


def compose_end(now_ms: int, session_end: SessionEnd) -> Composed:
    """The session is over: its streams are ended. Sockets stay open and hear nothing else of it."""
    return Composed(at_ms=now_ms, ends_streams=True, session_end=session_end)


def ends_cleanly(end_reason: str | None, *, failed: bool) -> bool:
    """Whether what a session did not take may be given to the next one; by its row, or by its last words."""
    return not failed and end_reason not in _FAILED


def _end_by(code: str) -> SessionEnd:
    """An idle session is over without anything being wrong with it."""
    idle = code == SessionErrorCode.SESSION_IDLE_TIMEOUT
    return SessionEnd.CLEAN if idle else SessionEnd.FAILED


def _spoken(event: SemEvent, text: str, now_ms: int, *, streaming: bool) -> Composed:
    """A step of a streamed reply: its `llm.*` frame, then the message as it is now.

    sem-chat: "A message upsert without text is not shown", but "A snapshot is taken as it is" and "First
    arrival fixes the order". So the message comes with its first text: who was there and who reloads see the
    same, in the same order.
    """
    if not text.strip():
        step = StreamStep(id=event.id, opens=streaming)
        return Composed(at_ms=now_ms, frames=(FrameDraft(event=event),), streams=(step,))
    entity = _message(event.id, _ROLE, text, now_ms, streaming=streaming)
    frames = (FrameDraft(event=event, entity=0, timed=not streaming), _upsert(entity, 0))
    return Composed(at_ms=now_ms, entities=(entity,), frames=frames)


def _message(message_id: str, role: str, text: str, now_ms: int, *, streaming: bool) -> EntityChange:
    return EntityChange(
        id=message_id,
        kind="message",
        props={"role": role, "content": _bounded(text), "streaming": streaming},
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        author=Author.USER if role == "user" else Author.AGENT,
    )


def _error(error_id: str, envelope: SessionErrorEnvelope, now_ms: int) -> EntityChange:
    props: dict[str, Any] = {
        "code": envelope.code,
        "message": cut_end(envelope.message, 4096),
        "recoverable": envelope.recoverable,
        "sessionId": envelope.session_id,
    }
    if envelope.occurred_at is not msgspec.UNSET:
        props["occurredAt"] = envelope.occurred_at
    return EntityChange(
        id=error_id,
        kind="error",
        props=props,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        author=Author.PLATFORM,
        once=True,
    )


def _upsert(entity: EntityChange, index: int) -> FrameDraft:
    return FrameDraft(event=SemEvent(type="timeline.upsert", id=entity.id), entity=index)


def _bounded(text: str) -> str:
    """At most so much text as an entity may hold; an ellipsis says where it was cut."""
    # A character is 6 bytes of JSON at most (a control character, escaped).
    if len(text) * 6 <= _MAX_TEXT_BYTES:
        return text
    size = len(msgspec.json.encode(text))
    while size > _MAX_TEXT_BYTES:
        text = cut_end(text, min(len(text) - 2, len(text) * _MAX_TEXT_BYTES // size))
        size = len(msgspec.json.encode(text))
    return text
