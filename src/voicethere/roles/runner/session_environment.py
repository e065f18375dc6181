"""The whole environment of an agent in one session (contract: agent-ipc.md)."""

from __future__ import annotations

from typing import Any

import msgspec

from voicethere.wire import ipc
from voicethere.wire.relay import DeployedAgent


def environment_of(
    agent: DeployedAgent, session_id: str, idle_seconds: float | None, context: dict[str, Any] | None
) -> dict[str, str]:
    """The project's variables and secrets, and on top of them what the platform says.

    `idle_seconds`: the session's idle limit, None for no limit; `context`: what the client passed along.
    """
    environment = {
        **agent.environment,
        **agent.secrets,
        ipc.ENV_SESSION_ID: session_id,
        ipc.ENV_PROJECT_ID: agent.project_id,
        ipc.ENV_BUILD_ID: agent.build_id,
        ipc.ENV_IDLE_TIMEOUT_SEC: "0" if idle_seconds is None else f"{idle_seconds:g}",
        ipc.ENV_CRASH_TTS_MESSAGE: agent.settings.error_message,
    }
    if context is not None:
        environment[ipc.ENV_CUSTOMER_CONTEXT] = msgspec.json.encode(context).decode()
    return environment
