"""What the store hands out that is no message of the wire, and how it fails.

Knows nothing of tables or databases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from voicethere.core.conversation import FinishedStream, StoredEntity
from voicethere.wire.control_plane import SessionErrorRow
from voicethere.wire.session_api import FailureCode, Mode, ProvisioningStatus


class StoreConflict(Exception):
    """A unique name or id is taken; the words name it."""


class TooManyPrompts(StoreConflict):
    """So many prompts of the conversation wait that another one is not taken."""


class StoreUnavailable(Exception):
    """The database cannot be read or written now (locked, full, gone); nothing was changed."""


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was presented and is neither revoked nor expired."""

    id: str
    kind: str  # "org" | "user" | "client"
    org_id: str
    project_id: str | None


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One session, from its request to its end. Times are wire times.

    `number` is its place in the order in which all sessions were made. `last_seen` is when its client last
    asked for it while it had no runner, `joined_at` when its client first came to its room.
    """

    id: str
    number: int
    project_id: str
    build_id: str | None
    status: ProvisioningStatus
    failure_code: FailureCode | None = None
    failure_message: str | None = None
    runner_id: str | None = None
    customer_context: dict[str, Any] | None = None
    created_at: str
    updated_at: str
    completed_at: str | None = None
    ended_at: str | None = None
    end_reason: str | None = None
    failed: bool = False
    mode: Mode | None = None
    wait_for_capacity: bool = True
    waiting_since: str | None = None
    last_seen: str | None = None
    joined_at: str | None = None
    conversation_id: str | None = None


class WaitingPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session stands in the line, from 1; it only ever moves forward. Times are wire times."""

    position: int
    waiting_since: str
    last_seen: str


class ConversationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One chat conversation. Times are wire times.

    `session_id` is the session that it has now, `outputs` how many outputs of that are applied; None between
    sessions. `last_session_id` is that one, or the one before. `issued`: the platform made the id, for use
    until `expires_at`; otherwise a client invented it. `finished` are the newest streams that are over and
    that no entity tells of.
    """

    project_id: str
    id: str
    version: int
    seq: int
    session_id: str | None
    last_session_id: str | None
    outputs: int
    issued: bool
    expires_at: str | None
    created_at: str
    updated_at: str
    finished: tuple[FinishedStream, ...] = ()


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation's entities in the order of their arrival, all as of `version`; empty where it is new."""

    version: int
    entities: Sequence[StoredEntity]


class PendingPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that no session has taken yet.

    `number` counts the conversation's prompts from 1. Given to a session, it is the `session_number`th of
    that; otherwise both are None. `attempts` is how many sessions it was given to.
    """

    number: int
    text: str
    session_id: str | None
    session_number: int | None
    attempts: int
    created_at: str


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that is kept; `version` and `seq` are those of its echo's frame."""

    version: int
    seq: int
    prompt: PendingPrompt


class HeldSession(msgspec.Struct, frozen=True, kw_only=True):
    """The current session of a conversation; None where its row is deleted."""

    project_id: str
    conversation_id: str
    session_id: str
    session: SessionRecord | None


class ErrorPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some error rows; `next_cursor` is None where there are no more."""

    errors: Sequence[SessionErrorRow]
    next_cursor: str | None


class CommittedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What `commit_batch` really did, in rows: nothing where the batch is a repeated one."""

    inserted: int
    duplicates: int
    dead: int
    ended: int
    suppressed: int = 0


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An item of the queue that could not be stored as what it is.

    `data` is its beginning (at most `MAX_DEAD_LETTER_BYTES` of `size_bytes`); `truncated` where that is not
    all of it. `problem` says why it is here; a higher `number` is newer.
    """

    number: int
    checksum_sha256: str
    data: bytes
    size_bytes: int
    problem: str
    created_at: str
    truncated: bool


class Suppression(msgspec.Struct, frozen=True, kw_only=True):
    """So many errors of one code were counted and not stored. Times are wire times of the first and last."""

    code: str
    count: int
    first_at: str
    last_at: str


class RetentionDone(msgspec.Struct, frozen=True, kw_only=True):
    """What one round of retention deleted, in rows; `more` where another round would delete again."""

    deleted_errors: int
    deleted_sessions: int
    deleted_dead_letters: int
    deleted_conversations: int = 0
    more: bool
