"""The database behind the platform: projects, builds, deployments, keys, sessions, errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from voicethere.wire.control_plane import (
    ApiKey,
    Build,
    Deployment,
    DeploymentStatus,
    DeployMode,
    KeyKind,
    Project,
    SessionErrorRow,
    SessionRow,
    ValidationStatus,
)
from voicethere.wire.queue import QueueItem
from voicethere.wire.relay import DeployedAgent
from voicethere.wire.session_api import FailureCode, ProvisioningStatus
from voicethere.wire.settings import ProjectSettings, SessionSettings


class StoreConflict(Exception):
    """A unique name is taken; the words name it."""


class StoreUnavailable(Exception):
    """The database cannot be read or written now (locked, full, gone)."""


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was presented and is neither revoked nor expired."""

    id: str
    kind: str  # "org" | "user" | "client"
    org_id: str
    project_id: str | None


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One session, from its request to its end. Times are wire times."""

    id: str
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


class ErrorPage(msgspec.Struct, frozen=True, kw_only=True):
    errors: Sequence[SessionErrorRow]
    next_cursor: str | None


class CommittedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What `commit_batch` really did."""

    inserted: int
    duplicates: int
    dead: int
    ended: int


class Store:
    """Every method raises StoreUnavailable where the database cannot be used now.

    All ids are strings; a method given the id of something that is not there (or of another org's project)
    returns None. Times are wire times.
    """

    @classmethod
    async def open(cls, url: str) -> Store:
        """Open and migrate. `url` is `sqlite:///path/voicethere.db` (a PostgreSQL URL later)."""
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError

    # -- orgs and keys
    async def ensure_default_org(self) -> str:
        """The id of the one org of an embedded platform; created the first time."""
        raise NotImplementedError

    async def create_key(
        self, *, org_id: str, name: str, kind: KeyKind, project_id: str | None, token_hash: str, prefix: str,
        expires_at: str | None,
    ) -> ApiKey:
        raise NotImplementedError

    async def list_keys(self, org_id: str) -> Sequence[ApiKey]:
        raise NotImplementedError

    async def revoke_key(self, org_id: str, key_id: str) -> bool:
        raise NotImplementedError

    async def find_key(self, token_hash: str) -> KeyRecord | None:
        """A live key by the SHA-256 (hex) of its token."""
        raise NotImplementedError

    # -- projects
    async def create_project(self, *, org_id: str, name: str, slug: str) -> Project:
        """Raises StoreConflict where the org has this slug already."""
        raise NotImplementedError

    async def list_projects(self, org_id: str) -> Sequence[Project]:
        raise NotImplementedError

    async def get_project(self, project_id: str, *, org_id: str) -> Project | None:
        raise NotImplementedError

    async def delete_project(self, project_id: str, *, org_id: str) -> bool:
        """With its builds, deployments, sessions, errors and keys."""
        raise NotImplementedError

    # -- settings, environment, secrets
    async def get_session_settings(self, project_id: str) -> SessionSettings:
        raise NotImplementedError

    async def put_session_settings(self, project_id: str, settings: SessionSettings) -> None:
        raise NotImplementedError

    async def get_project_settings(self, project_id: str) -> ProjectSettings:
        raise NotImplementedError

    async def put_project_settings(self, project_id: str, settings: ProjectSettings) -> None:
        raise NotImplementedError

    async def get_environment(self, project_id: str) -> dict[str, str]:
        raise NotImplementedError

    async def put_environment(self, project_id: str, key: str, value: str) -> None:
        raise NotImplementedError

    async def delete_environment(self, project_id: str, key: str) -> bool:
        raise NotImplementedError

    async def get_secrets(self, project_id: str) -> dict[str, str]:
        raise NotImplementedError

    async def put_secret(self, project_id: str, name: str, value: str) -> None:
        raise NotImplementedError

    async def delete_secret(self, project_id: str, name: str) -> bool:
        raise NotImplementedError

    # -- builds and deployments
    async def create_build(
        self, *, project_id: str, size_bytes: int, checksum_sha256: str, message: str | None,
        validation_status: ValidationStatus, validation_error: str | None,
    ) -> Build:
        raise NotImplementedError

    async def list_builds(self, project_id: str) -> Sequence[Build]:
        """Newest first."""
        raise NotImplementedError

    async def get_build(self, project_id: str, build_id: str) -> Build | None:
        raise NotImplementedError

    async def set_active_build(self, project_id: str, build_id: str) -> None:
        raise NotImplementedError

    async def create_deployment(
        self, *, project_id: str, build_id: str | None, mode: DeployMode
    ) -> Deployment:
        raise NotImplementedError

    async def finish_deployment(
        self, deployment_id: str, *, status: DeploymentStatus, error: str | None, agent: DeployedAgent | None
    ) -> Deployment:
        """`completed` with `agent`: from now on the project's sessions run with exactly that."""
        raise NotImplementedError

    async def get_deployment(self, deployment_id: str, *, org_id: str) -> Deployment | None:
        raise NotImplementedError

    async def undeploy(self, project_id: str) -> bool:
        raise NotImplementedError

    async def deployed_agent(self, project_id: str) -> DeployedAgent | None:
        """What the last completed deploy froze; None where nothing is deployed."""
        raise NotImplementedError

    # -- sessions
    async def create_session(
        self, *, session_id: str, project_id: str, build_id: str | None,
        customer_context: dict[str, Any] | None, idempotency_key: str | None,
    ) -> SessionRecord:
        """With an idempotency key that the project has used before: that session, unchanged."""
        raise NotImplementedError

    async def get_session(self, session_id: str) -> SessionRecord | None:
        raise NotImplementedError

    async def update_session(
        self, session_id: str, *, status: ProvisioningStatus, build_id: str | None = None,
        runner_id: str | None = None, failure_code: FailureCode | None = None,
        failure_message: str | None = None,
    ) -> SessionRecord | None:
        """Never changes a session that has ended or failed."""
        raise NotImplementedError

    async def list_sessions(
        self, project_id: str, *, start: str | None, end: str | None, limit: int
    ) -> Sequence[SessionRow]:
        """Newest first."""
        raise NotImplementedError

    async def get_session_row(self, project_id: str, session_id: str) -> SessionRow | None:
        raise NotImplementedError

    # -- errors
    async def commit_batch(
        self, items: Sequence[QueueItem], dead: Sequence[tuple[bytes, str]]
    ) -> CommittedBatch:
        """In one transaction: error rows ("on conflict do nothing" on the id), ends of sessions, and dead
        letters (`(data, problem)`). An error whose session or project is not known becomes a dead letter."""
        raise NotImplementedError

    async def project_errors(self, project_id: str, *, limit: int, cursor: str | None) -> ErrorPage:
        """Newest first. Raises ValueError for a cursor that is none."""
        raise NotImplementedError

    async def session_errors(
        self, project_id: str, session_id: str, *, limit: int, cursor: str | None
    ) -> ErrorPage:
        """Oldest first."""
        raise NotImplementedError
