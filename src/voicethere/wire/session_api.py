"""Messages of the session API: start a session, poll its provisioning (contract: session-api.md)."""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType


class Mode(enum.StrEnum):
    """What a session carries: audio, data channels only, or both counted as needed for "connected"."""

    VOICE = "voice"
    DATA = "data"
    VOICE_DATA = "voice+data"

    @property
    def has_audio(self) -> bool:
        """Whether the offer has an audio m-line."""
        return self is not Mode.DATA


class ProvisioningStatus(enum.StrEnum):
    """queued → (waiting) → provisioning → ready | failed."""

    QUEUED = "queued"
    WAITING = "waiting"
    PROVISIONING = "provisioning"
    READY = "ready"
    FAILED = "failed"


class FailureCode(enum.StrEnum):
    """Why a provisioning job failed."""

    NOT_DEPLOYED = "NOT_DEPLOYED"
    RUNNER_UNAVAILABLE = "RUNNER_UNAVAILABLE"
    CAPACITY_EXCEEDED = "CAPACITY_EXCEEDED"
    CAPACITY_WAIT_EXPIRED = "CAPACITY_WAIT_EXPIRED"
    MONTHLY_USAGE_EXCEEDED = "MONTHLY_USAGE_EXCEEDED"
    ORCHESTRATOR_ERROR = "ORCHESTRATOR_ERROR"
    JOIN_TOKEN_ERROR = "JOIN_TOKEN_ERROR"  # noqa: S105 - a code, not a secret
    TIMEOUT = "TIMEOUT"


class StartSession(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /v1/sessions`."""

    project_id: str
    build_id: str | UnsetType = UNSET
    run_async: bool = msgspec.field(name="async", default=True)
    wait_for_capacity: bool = True
    customer_context: dict[str, Any] | UnsetType = UNSET


class SessionQueued(msgspec.Struct, frozen=True, kw_only=True):
    """The 202 answer."""

    session_id: str
    status: Literal["queued", "waiting", "provisioning"] = "queued"


class IceServer(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `ice_servers`, as WebRTC's RTCIceServer."""

    urls: str | list[str]
    username: str | UnsetType = UNSET
    credential: str | UnsetType = UNSET


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What a client needs to connect. `join_token` goes into the socket's query, never into a log.

    `project_id` and `build_id` are only there in the answer to a synchronous start.
    """

    session_id: str
    mode: Mode
    join_token: str
    signaling_url: str
    room_id: str
    ice_servers: list[IceServer]
    expires_at: str
    project_id: str | UnsetType = UNSET
    build_id: str | UnsetType = UNSET


class SessionState(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/sessions/{session_id}`."""

    session_id: str
    project_id: str
    build_id: str | None
    status: ProvisioningStatus
    failure_code: FailureCode | UnsetType = UNSET
    failure_message: str | UnsetType = UNSET
    queue_position: int | UnsetType = UNSET
    waiting_since: str | UnsetType = UNSET
    waiting_expires_at: str | UnsetType = UNSET
    queue_last_seen_at: str | UnsetType = UNSET
    estimated_wait_seconds: float | UnsetType = UNSET
    retry_after_ms: int | UnsetType = UNSET
    credentials: Credentials | UnsetType = UNSET
    created_at: str
    updated_at: str
    completed_at: str | UnsetType = UNSET
    ended_at: str | UnsetType = UNSET
    end_reason: str | UnsetType = UNSET
