"""What becomes of a conversation by a change: versions, sequence, streams and entities. Pure.

Whoever keeps conversations calls this with what is kept, and keeps what it returns, in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from voicethere.core.conversation.limits import MAX_ENDED_STREAMS, MAX_OPEN_STREAMS, MAX_PROPS_BYTES
from voicethere.core.conversation.values import (
    Applied,
    AppliedEntity,
    Author,
    Composed,
    ConversationState,
    EndedStream,
    EntityChange,
    FinishedStream,
    OpenStream,
    Skipped,
    StoredEntity,
)

_FRAMES_OF_A_STREAM = 1
_FRAMES_OF_A_MESSAGE = 2


class Advanced(NamedTuple):
    """`entities` are those that the change touched, as they are now."""

    state: ConversationState
    entities: Mapping[str, StoredEntity]
    applied: Applied


def placed(state: ConversationState, session_id: str, number: int | None) -> ConversationState | Skipped:
    """The state that counts this output of the session, or why it is not its turn."""
    if number is None:
        if session_id == state.session_id and state.session_open:
            return state
        return Skipped(applied_up_to=None)
    if session_id == state.session_id:
        if number == state.outputs + 1:
            return replace(state, outputs=number)
        return Skipped(applied_up_to=state.outputs)
    if session_id == state.previous_session_id:
        if number == state.previous_outputs + 1:
            return replace(state, previous_outputs=number)
        return Skipped(applied_up_to=state.previous_outputs)
    return Skipped(applied_up_to=None)


def advance(
    state: ConversationState, known: Mapping[str, StoredEntity], composed: Composed, session_id: str | None
) -> Advanced:
    """The conversation after a change whose turn it is (`placed`).

    `known` has at least every entity that the change or an open stream names and that is there.
    `session_id` is the session that the change comes from; None for the user's own.
    """
    touched: dict[str, StoredEntity] = {}
    version, arrivals = state.version, state.arrivals
    streams = {stream.id: stream for stream in state.streams}
    finished = {stream.id: stream for stream in state.finished}
    ended: list[EndedStream] = []
    ended_frames = 0
    if composed.ends_streams:
        for stream in state.streams:
            if stream.session_id != session_id:
                continue
            del streams[stream.id]
            entity = known.get(stream.id)
            if entity is not None and _is_running(entity):
                version += 1
                entity = replace(
                    entity,
                    version=version,
                    updated_at_ms=max(entity.updated_at_ms, composed.at_ms),
                    props={**entity.props, "streaming": False},
                )
                touched[stream.id] = entity
                ended_frames += _FRAMES_OF_A_MESSAGE
            else:
                entity = None
                ended_frames += _FRAMES_OF_A_STREAM
                _finish(finished, stream)
            ended.append(EndedStream(id=stream.id, thinking=stream.thinking, entity=entity))
    applied: list[AppliedEntity | None] = []
    for change in composed.entities:
        before = touched.get(change.id) or known.get(change.id)
        after = _merged(before, change, version=version + 1, position=arrivals + 1)
        if not _may_change(before, after, change):
            applied.append(None)
            continue
        version += 1
        arrivals += before is None
        touched[change.id] = after
        applied.append(AppliedEntity(version=version, created_at_ms=after.created_at_ms))
        if session_id is not None and after.kind == "message" and after.props.get("role") != "user":
            # sem-chat: "A message entity of any role but `user` also starts or ends the stream of its id"
            finished.pop(after.id, None)
            _step(streams, OpenStream(after.id, session_id), opens=_is_running(after))
    for step in composed.streams:
        if session_id is None:
            continue
        running = streams.get(step.id)
        if step.opens:
            finished.pop(step.id, None)
        elif running is not None:
            _finish(finished, running)
        _step(streams, OpenStream(step.id, session_id, step.thinking), opens=step.opens)
    sent = sum(draft.entity is None or applied[draft.entity] is not None for draft in composed.frames)
    is_over = composed.session_end is not None and session_id == state.session_id
    after_state = replace(
        state,
        version=version,
        seq=state.seq + ended_frames + sent,
        arrivals=arrivals,
        streams=tuple(streams.values())[-MAX_OPEN_STREAMS:],
        finished=tuple(finished.values())[-MAX_ENDED_STREAMS:],
        session_open=state.session_open and not is_over,
    )
    return Advanced(
        after_state,
        touched,
        Applied(
            first_version=state.version + 1,
            first_seq=state.seq + 1,
            version=version,
            entities=tuple(applied),
            ended=tuple(ended),
        ),
    )


def _may_change(before: StoredEntity | None, after: StoredEntity, change: EntityChange) -> bool:
    if before is not None and change.once:
        return False
    if change.author is not Author.AGENT:
        return True
    # Neither what is of others, nor step by step what would look as if it were the user's.
    forged = after.kind == "message" and after.props.get("role") == "user"
    return after.author is Author.AGENT and not forged


def _merged(known: StoredEntity | None, change: EntityChange, *, version: int, position: int) -> StoredEntity:
    """sem-chat: "equal or higher merges (properties key by key; kind and creation time follow when given)".

    Of the creation times the first is kept here, so that what follows is always the same. Where both together
    are too large, what was known before goes.
    """
    if known is None:
        return StoredEntity(
            id=change.id,
            kind=change.kind,
            author=change.author,
            position=position,
            created_at_ms=change.created_at_ms,
            updated_at_ms=max(change.created_at_ms, change.updated_at_ms),
            version=version,
            props=change.props,
            meta=change.meta,
        )
    props, meta = {**known.props, **change.props}, {**known.meta, **change.meta}
    if content_bytes(props, meta) > MAX_PROPS_BYTES:
        props, meta = change.props, change.meta
    return replace(
        known,
        kind=change.kind,
        updated_at_ms=max(known.updated_at_ms, change.updated_at_ms),
        version=version,
        props=props,
        meta=meta,
    )


def content_bytes(props: object, meta: object) -> int:
    """How large an entity's content is, as JSON."""
    return len(msgspec.json.encode(props)) + len(msgspec.json.encode(meta))


def _is_running(entity: StoredEntity) -> bool:
    return entity.kind == "message" and entity.props.get("streaming") is True


def _finish(finished: dict[str, FinishedStream], stream: OpenStream) -> None:
    finished.pop(stream.id, None)
    finished[stream.id] = FinishedStream(stream.id, stream.thinking)


def _step(streams: dict[str, OpenStream], stream: OpenStream, *, opens: bool) -> None:
    if opens:
        streams.setdefault(stream.id, stream)
    else:
        streams.pop(stream.id, None)
