"""Messages of the control plane's HTTP API (contract: control-plane.md).

Fields that may be null are sent as null: they are columns of a row.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from voicethere.wire.queue import QueueItem

ProjectName = Annotated[str, Meta(min_length=1, max_length=100)]
Slug = Annotated[str, Meta(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$")]


class CreateProject(msgspec.Struct, frozen=True, kw_only=True):
    name: ProjectName
    slug: Slug | UnsetType = UNSET


class DeleteProject(msgspec.Struct, frozen=True, kw_only=True):
    confirm_name: str | UnsetType = UNSET


class Project(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    org_id: str
    name: str
    slug: str
    active_build_id: str | None
    deployed_build_id: str | None
    deployed_at: str | None
    is_deployed: bool
    created_at: str


class ProjectList(msgspec.Struct, frozen=True, kw_only=True):
    projects: list[Project]


class ValidationStatus(enum.StrEnum):
    """What loading the bundle in the sandbox came to."""

    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """`validation_error` says why a bundle is invalid."""

    id: str
    project_id: str
    size_bytes: int
    checksum_sha256: str
    validation_status: ValidationStatus
    validation_error: str | None = None
    message: str | None
    created_at: str


class BuildList(msgspec.Struct, frozen=True, kw_only=True):
    builds: list[Build]


class PromoteBuild(msgspec.Struct, frozen=True, kw_only=True):
    build_id: str | UnsetType = UNSET


class ActiveBuild(msgspec.Struct, frozen=True, kw_only=True):
    project_id: str
    active_build_id: str


class DeployMode(enum.StrEnum):
    DRAIN = "drain"
    FORCE = "force"


class CreateDeployment(msgspec.Struct, frozen=True, kw_only=True):
    project_id: str
    build_id: str | UnsetType = UNSET
    mode: DeployMode = DeployMode.DRAIN


class DeploymentStatus(enum.StrEnum):
    QUEUED = "queued"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    project_id: str
    build_id: str | None
    status: DeploymentStatus
    mode: DeployMode
    error: str | None
    created_at: str
    completed_at: str | None


class SessionErrorRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stored error. `message` is for the operator, `client_message` is what the client was told."""

    id: str
    orchestrator_session_id: str
    source: str
    code: str
    message: str
    stack_trace: str | None
    created_at: str
    client_message: str | None
    build_id: str | None
    recoverable: bool
    customer_context: dict[str, Any] | None
    occurred_at: str
    details: dict[str, Any]


class SuppressedErrors(msgspec.Struct, frozen=True, kw_only=True):
    """So many errors of one code were counted and not stored, because the project had too many at once."""

    code: str
    count: int
    first_at: str
    last_at: str


class ProjectErrors(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; `next_cursor` fetches older ones. `suppressed`, on the first page only and only where
    there are any, says what is missing from the list."""

    project_id: str
    errors: list[SessionErrorRow]
    next_cursor: str | UnsetType = UNSET
    suppressed: list[SuppressedErrors] | UnsetType = UNSET


class SessionErrors(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest first; `next_cursor` fetches later ones."""

    project_id: str
    orchestrator_session_id: str
    errors: list[SessionErrorRow]
    next_cursor: str | UnsetType = UNSET


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """`conversation_id` is there where the session is one of a chat."""

    id: str
    orchestrator_session_id: str
    status: Literal["active", "ended", "failed"]
    build_id: str | None
    created_at: str
    ended_at: str | None
    end_reason: str | None
    conversation_id: str | UnsetType = UNSET


class SessionList(msgspec.Struct, frozen=True, kw_only=True):
    sessions: list[SessionRow]
    start: str | None
    end: str | None
    count: int


class ChangeSetting(msgspec.Struct, frozen=True, kw_only=True):
    """Body of both `PATCH` routes."""

    key: str
    value: Any


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    project_id: str
    settings: dict[str, Any]


class KeyKind(enum.StrEnum):
    ADMIN = "admin"
    CLIENT = "client"


class CreateApiKey(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    kind: KeyKind = KeyKind.ADMIN
    project_id: str | UnsetType = UNSET
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] | UnsetType = UNSET


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """`key` is only there in the answer to `POST`: it is stored hashed."""

    id: str
    name: str
    kind: KeyKind
    prefix: str
    project_id: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    key: str | UnsetType = UNSET


class ApiKeyList(msgspec.Struct, frozen=True, kw_only=True):
    api_keys: list[ApiKey]


class ErrorAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """The 202 answer to a service that reports an error: it is durably queued."""

    id: str


class PutVariable(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `PUT …/environment/{key}`."""

    value: str


class EnvironmentView(msgspec.Struct, frozen=True, kw_only=True):
    project_id: str
    environment: dict[str, str]


class PutSecret(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    value: str


class MaskedSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret's value is never sent back; `masked` shows that there is one."""

    name: str
    masked: str


class SecretList(msgspec.Struct, frozen=True, kw_only=True):
    project_id: str
    secrets: list[MaskedSecret]


class DeadLetterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One item of the queue that could not be stored as what it is. A higher `number` is newer.

    `problem` says why it is here; `preview` is its beginning, with control characters as escapes;
    `truncated` where not all of its `size_bytes` were kept.
    """

    number: int
    created_at: str
    size_bytes: int
    truncated: bool
    problem: str
    preview: str


class DeadLetterList(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; `count` is how many there are in all, `next_before` fetches older ones."""

    dead_letters: list[DeadLetterSummary]
    count: int
    next_before: int | UnsetType = UNSET


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter with what was kept of it: `text` where that is UTF-8, else `base64`."""

    number: int
    created_at: str
    size_bytes: int
    truncated: bool
    problem: str
    text: str | UnsetType = UNSET
    base64: str | UnsetType = UNSET


class ReplayDeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Optional body of a replay: the item, corrected."""

    item: QueueItem | UnsetType = UNSET


class ReplayAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """The 202 answer to a replay: the item is durably queued, and the letter is gone."""

    number: int
