"""Session settings of a project: types, defaults and ranges (contract: control-plane.md)."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from voicethere.wire.session_api import Mode

IdleSeconds = Annotated[int, Meta(ge=30, le=86_400)]


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Applied on the next deploy."""

    error_message: Annotated[str, Meta(max_length=500)] = "Sorry, something went wrong."
    idle_timeout_enabled: bool = True
    idle_timeout_seconds: IdleSeconds = 30
    data_only_idle_timeout_seconds: IdleSeconds = 30
    idle_timeout_voice_activity: bool = True
    idle_timeout_dc_inbound: bool = True
    stt_enabled: bool = True
    conversation_history_enabled: bool = True
    client_stack_traces: bool = True


class AgentCrashPolicy(enum.StrEnum):
    """What follows when an agent's process dies: its sessions end, or it is started again for them."""

    DISCONNECT_ALL = "disconnect_all"
    RESTART_CHILD = "restart_child"


class ProjectSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a project's sessions are run.

    `shared_child_per_session`: those on one runner share one child. `warm_pool_enabled`: every runner keeps a
    child ready in which the agent is loaded already; a session takes it, and another one is started.
    `retention_days` and `retention_errors` bound the stored errors by age and number (0: as the operator
    says). `monthly_session_limit` is how many sessions may be started in a calendar month (UTC; 0: any
    number). `allowed_origins` are the origins (`https://shop.example`) whose pages may use the session API
    and chat for this project; none: those of every origin. `require_issued_conversations`: chat takes only
    conversation ids that the gateway has issued, not those that clients invent.
    """

    mode: Mode = Mode.VOICE
    client_speak_enabled: bool = False
    agent_crash_policy: AgentCrashPolicy = AgentCrashPolicy.DISCONNECT_ALL
    shared_child_per_session: bool = False
    warm_pool_enabled: bool = False
    retention_days: Annotated[int, Meta(ge=0, le=3650)] = 0
    retention_errors: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    monthly_session_limit: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    allowed_origins: Annotated[list[str], Meta(max_length=50)] = []
    require_issued_conversations: bool = False
