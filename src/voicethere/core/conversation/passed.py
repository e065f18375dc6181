"""What an agent's `send_to_client` means in a chat: a SEM frame is passed on, anything else is wrapped.

An agent is not trusted: it may not speak as the user or as the platform, nor send a frame that a client
cannot read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from voicethere.core.conversation.advance import content_bytes
from voicethere.core.conversation.limits import (
    MAX_ENTITY_ID_CHARS,
    MAX_KIND_CHARS,
    MAX_PROPS_BYTES,
    id_problem,
)
from voicethere.core.conversation.values import Author, Composed, EntityChange, FrameDraft, StreamStep
from voicethere.errors.bounds import cut_end
from voicethere.wire.sem import (
    SemEvent,
    TimelineUpsert,
    decode_frame,
    whole_number,
)

_OPENS = {"llm.start": False, "llm.delta": False, "llm.thinking.start": True, "llm.thinking.delta": True}
_ENDS = frozenset({"llm.final", "llm.thinking.summary", "llm.thinking.final"})
_PLATFORM = "of the platform's: an agent cannot send it"


def compose_passed(payload: str, now_ms: int) -> Composed:
    """What this JSON text of the agent's means.

    sem-chat: "`send_to_client` of a SEM frame is passed on, of anything else becomes a frame of type
    `agent.message` with the payload as data".
    """
    if len(payload) > MAX_PROPS_BYTES:
        return _refused(
            now_ms, f"a message to the client may have {MAX_PROPS_BYTES} bytes, not {len(payload)}"
        )
    try:
        event = decode_frame(payload)
        raw = msgspec.json.decode(payload)
        msgspec.json.encode(raw)
    except (
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:  # what is not JSON, or cannot be sent as JSON
        return _refused(now_ms, f"a message to the client was not sent: {error}")
    if event is None:
        return Composed(
            at_ms=now_ms,
            frames=(FrameDraft(event=SemEvent(type="agent.message", id="", data=raw)),),
        )
    problem = id_problem(event.id, MAX_ENTITY_ID_CHARS)
    if problem is not None:
        return _refused(now_ms, f"a SEM frame was not sent: its event.id {problem}")
    if event.type == "session.error":
        return _refused(now_ms, f"a SEM frame was not sent: session.error is {_PLATFORM}")
    if isinstance(event.data, TimelineUpsert):
        return _upsert(event, event.data, now_ms)
    steps: tuple[StreamStep, ...] = ()
    if event.type in _OPENS:
        steps = (StreamStep(id=event.id, opens=True, thinking=_OPENS[event.type]),)
    elif event.type in _ENDS:
        steps = (StreamStep(id=event.id, opens=False),)
    # The data as it came: fields that we do not know may mean something to its client.
    sent = _as_sent(event, raw["event"].get("data", {} if event.data is not None else None))
    return Composed(at_ms=now_ms, frames=(FrameDraft(event=sent),), streams=steps)


def _upsert(event: SemEvent, upsert: TimelineUpsert, now_ms: int) -> Composed:
    """sem-chat: "`props` an object, `meta` strings to strings"; the version is the conversation's, not the
    agent's."""
    data = upsert.entity
    problem = _entity_problem(data.id, data.kind, data.props, data.meta)
    if problem is not None:
        return _refused(now_ms, f"a timeline.upsert was not sent: {problem}")
    change = EntityChange(
        id=data.id,
        kind=data.kind,
        props=data.props,
        meta=data.meta,
        created_at_ms=_moment(data.created_at_ms, now_ms),
        updated_at_ms=_moment(data.updated_at_ms, now_ms),
        author=Author.AGENT,
    )
    frame = FrameDraft(event=_as_sent(event, None), entity=0)
    return Composed(at_ms=now_ms, entities=(change,), frames=(frame,))


def _entity_problem(entity_id: str, kind: str, props: dict[str, Any], meta: dict[str, str]) -> str | None:
    problem = id_problem(entity_id, MAX_ENTITY_ID_CHARS)
    if problem is not None:
        return f"entity.id {problem}"
    problem = id_problem(kind, MAX_KIND_CHARS)
    if problem is not None:
        return f"entity.kind {problem}"
    if kind == "error":
        return f"an entity of kind error is {_PLATFORM}"
    if kind == "message" and props.get("role") == "user":
        return "a message with the role user is the user's: an agent cannot send it"
    size = content_bytes(props, meta)
    if size > MAX_PROPS_BYTES:
        return f"entity.props and entity.meta may have {MAX_PROPS_BYTES} bytes of JSON, not {size}"
    return None


def _as_sent(event: SemEvent, data: Any) -> SemEvent:
    """Without the agent's `seq`: the conversation has its own."""
    return SemEvent(
        type=event.type, id=event.id, data=data, metadata=event.metadata, stream_id=event.stream_id
    )


def _moment(reported: int | str, now_ms: int) -> int:
    """A time that the agent gave, unless it gave none or one that is yet to come."""
    moment = whole_number(reported)
    return moment if 0 < moment <= now_ms else now_ms


def _refused(now_ms: int, words: str) -> Composed:
    return Composed(at_ms=now_ms, refused=cut_end(words, 500))
