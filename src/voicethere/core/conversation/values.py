"""The values of a conversation: what changes it, what is kept of it, and what a change came to."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from voicethere.wire.sem import SemEvent


class Author(enum.StrEnum):
    """Who an entity is of. An agent cannot change what is not an agent's."""

    USER = "user"
    AGENT = "agent"
    PLATFORM = "platform"


class SessionEnd(enum.StrEnum):
    """How the conversation's session is over; the conversation goes on.

    `clean`: a prompt that it did not take is for the next session. `failed`: such a prompt is dropped (the
    user sees the error, and may send it again).
    """

    CLEAN = "clean"
    FAILED = "failed"


class EntityChange(msgspec.Struct, frozen=True, kw_only=True):
    """A report of one entity, merged with what is known of its id: properties key by key.

    Times are epoch milliseconds; the first creation time is kept. `once`: nothing happens where the id is
    known already.
    """

    id: str
    kind: str
    props: dict[str, Any]
    meta: dict[str, str] = {}
    created_at_ms: int
    updated_at_ms: int
    author: Author
    once: bool = False


class StoredEntity(msgspec.Struct, frozen=True, kw_only=True):
    """One entity as it is kept. `position` is the order of first arrival; times are epoch milliseconds."""

    id: str
    kind: str
    author: Author
    position: int
    created_at_ms: int
    updated_at_ms: int
    version: int
    props: dict[str, Any]
    meta: dict[str, str] = {}


class FrameDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A frame that has no `seq` yet.

    `entity` is the index of the entity change that it goes with: where that one is refused, the frame is not
    sent. A `timeline.upsert` gets its data from there. `timed`: its metadata tells how old that entity is.
    """

    event: SemEvent
    entity: int | None = None
    timed: bool = False


class StreamStep(msgspec.Struct, frozen=True, kw_only=True):
    """A frame of the agent's own that opens or ends the stream of this id on a client."""

    id: str
    opens: bool
    thinking: bool = False


class Composed(msgspec.Struct, frozen=True, kw_only=True):
    """What one output means.

    `ends_streams`: every stream of the session that runs is ended first. `refused` says why an output of the
    agent's means nothing, in words for its author.
    """

    at_ms: int
    entities: tuple[EntityChange, ...] = ()
    frames: tuple[FrameDraft, ...] = ()
    streams: tuple[StreamStep, ...] = ()
    ends_streams: bool = False
    session_end: SessionEnd | None = None
    refused: str | None = None


class OpenStream(msgspec.Struct, frozen=True, array_like=True):
    """A stream that runs on the conversation's clients, and the session that it is of."""

    id: str
    session_id: str
    thinking: bool = False


class FinishedStream(msgspec.Struct, frozen=True, array_like=True):
    """A stream without a message that ran on the conversation's clients: no entity tells that it is over."""

    id: str
    thinking: bool


class ConversationState(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of a conversation.

    `outputs` is how many outputs of `session_id` are applied. That session is the current one while
    `session_open`; after that, and after the next one began (then it is the previous one), what fails late is
    still told. `arrivals` counts the entities that ever arrived. `streams` run; `finished` ran, newest last.
    """

    version: int = 0
    seq: int = 0
    session_id: str | None = None
    session_open: bool = False
    outputs: int = 0
    previous_session_id: str | None = None
    previous_outputs: int = 0
    arrivals: int = 0
    streams: tuple[OpenStream, ...] = ()
    finished: tuple[FinishedStream, ...] = ()


class ConversationChange(msgspec.Struct, frozen=True, kw_only=True):
    """An output of a session, for the store to apply once.

    `number` is the output's (`wire.relay.ChatOutput`). None is the platform's own word instead of the
    session's: it is applied only while that session is the current one, so it should end it.
    `prompts_taken` is how many of its prompts the session had taken: where this ends it, those are not for
    the next one.
    """

    project_id: str
    conv_id: str
    session_id: str
    number: int | None
    composed: Composed
    prompts_taken: int = 0


class AppliedEntity(msgspec.Struct, frozen=True, kw_only=True):
    """The version that a change of an entity got, and when the entity was made (epoch milliseconds)."""

    version: int
    created_at_ms: int


class EndedStream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that a change ended; `entity`, its message as it is now, where there is one."""

    id: str
    thinking: bool
    entity: StoredEntity | None


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a change came to: the first numbers that it got, and per entity change what became of it.

    `entities` has None for a change that was refused. `version` is the conversation's, after the change.
    """

    first_version: int
    first_seq: int
    version: int
    entities: tuple[AppliedEntity | None, ...] = ()
    ended: tuple[EndedStream, ...] = ()


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing was changed.

    `applied_up_to` is the session's last output that is applied: the change's own number or more where
    somebody else was first; less than the number before it where one is missing. None: the conversation knows
    nothing of that session (any more), or there is no such conversation.
    """

    applied_up_to: int | None
