"""What a conversation's sockets and snapshots are sent, as bytes of JSON (contract: sem-chat.md)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from voicethere.core.conversation.values import (
    Applied,
    AppliedEntity,
    Composed,
    EndedStream,
    EntityChange,
    FinishedStream,
    FrameDraft,
    StoredEntity,
)
from voicethere.wire.sem import (
    LlmEnd,
    SemEvent,
    SemFrame,
    TimelineEntityData,
    TimelineSnapshot,
    TimelineUpsert,
)

_encoder = msgspec.json.Encoder()


def number(conv_id: str, composed: Composed, applied: Applied) -> list[bytes]:
    """The frames of a change that was applied, in the order of their `seq`, each as JSON.

    sem-chat: "an upsert carries the counter's value"; "End every stream before a `session.error`".
    """
    events: list[SemEvent] = []
    for stream in applied.ended:
        events += _endings(conv_id, stream)
    for draft in composed.frames:
        if draft.entity is None:
            events.append(draft.event)
            continue
        change, kept = composed.entities[draft.entity], applied.entities[draft.entity]
        if kept is not None:
            events.append(_event(conv_id, draft, change, kept))
    return [_frame(event, applied.first_seq + index) for index, event in enumerate(events)]


def number_prompt(conv_id: str, composed: Composed, *, version: int, seq: int) -> list[bytes]:
    """The frame of a user's message (`compose_prompt`) that was kept as of `version`, as `seq`."""
    kept = AppliedEntity(version=version, created_at_ms=composed.entities[0].created_at_ms)
    applied = Applied(first_version=version, first_seq=seq, version=version, entities=(kept,))
    return number(conv_id, composed, applied)


def resend(
    conv_id: str, entities: Sequence[StoredEntity], finished: Sequence[FinishedStream] = ()
) -> list[bytes]:
    """Entities and ends of streams once more, for a socket that opened or was slow, without a `seq`.

    sem-chat: "the gateway sends the conversation's latest entities again when a socket opens"; "End every
    stream … again for a client that reconnects". A message's entity tells of its own stream.
    """
    events = [_upsert(conv_id, entity) for entity in entities]
    events += [_end(stream.id, thinking=stream.thinking) for stream in finished]
    return [_encoder.encode(SemFrame(event=event)) for event in events]


def snapshot(conv_id: str, version: int, entities: Sequence[StoredEntity], now_ms: int) -> bytes:
    """The body of `GET {base}/api/timeline`; the entities in the order of their arrival.

    sem-chat: "the entities of a snapshot take the snapshot's" version.
    """
    return _encoder.encode(
        TimelineSnapshot(
            conv_id=conv_id,
            version=version,
            server_time_ms=now_ms,
            entities=[_data(entity) for entity in entities],
        )
    )


def _event(conv_id: str, draft: FrameDraft, change: EntityChange, kept: AppliedEntity) -> SemEvent:
    event = draft.event
    if event.type == "timeline.upsert":
        data = TimelineEntityData(
            id=change.id,
            kind=change.kind,
            created_at_ms=kept.created_at_ms,
            updated_at_ms=max(change.updated_at_ms, kept.created_at_ms),
            props=change.props,
            meta=change.meta,
        )
        return replace(event, data=TimelineUpsert(conv_id=conv_id, version=kept.version, entity=data))
    if draft.timed:
        return replace(event, metadata=_duration(kept.created_at_ms, change.updated_at_ms))
    return event


def _endings(conv_id: str, stream: EndedStream) -> list[SemEvent]:
    if stream.entity is None:
        return [_end(stream.id, thinking=stream.thinking)]
    content = stream.entity.props.get("content")
    end = SemEvent(
        type="llm.final",
        id=stream.id,
        data=LlmEnd(id=stream.id, text=content if isinstance(content, str) else ""),
        metadata=_duration(stream.entity.created_at_ms, stream.entity.updated_at_ms),
    )
    return [end, _upsert(conv_id, stream.entity)]


def _end(stream_id: str, *, thinking: bool) -> SemEvent:
    if thinking:
        return SemEvent(type="llm.thinking.final", id=stream_id, data=LlmEnd(id=stream_id))
    return SemEvent(type="llm.final", id=stream_id, data=LlmEnd(id=stream_id, text=""))


def _duration(begun_ms: int, ended_ms: int) -> dict[str, int]:
    return {"durationMs": max(0, ended_ms - begun_ms)}


def _upsert(conv_id: str, entity: StoredEntity) -> SemEvent:
    upsert = TimelineUpsert(conv_id=conv_id, version=entity.version, entity=_data(entity))
    return SemEvent(type="timeline.upsert", id=entity.id, data=upsert)


def _data(entity: StoredEntity) -> TimelineEntityData:
    return TimelineEntityData(
        id=entity.id,
        kind=entity.kind,
        created_at_ms=entity.created_at_ms,
        updated_at_ms=entity.updated_at_ms,
        props=entity.props,
        meta=entity.meta,
    )


def _frame(event: SemEvent, seq: int) -> bytes:
    if not event.id:
        event = replace(event, id=f"{event.type}-{seq}")
    return _encoder.encode(SemFrame(event=replace(event, seq=seq)))
