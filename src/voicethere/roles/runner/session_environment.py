"""The whole environment of an agent in one session (contract: agent-ipc.md)."""

from __future__ import annotations

from typing import Any

import msgspec

from voicethere.roles.runner.session_rules import idle_seconds_of
from voicethere.wire import ipc
from voicethere.wire.relay import DeployedAgent

OF_ONE_SESSION = frozenset({ipc.ENV_SESSION_ID, ipc.ENV_CUSTOMER_CONTEXT})
"""What nobody knows before there is a session, and what cannot be one for several."""


def environment_ahead(agent: DeployedAgent) -> dict[str, str]:
    """All that is known before there is a session: for a child that is started ahead of it."""
    environment = environment_of(agent, "", None)
    return {name: value for name, value in environment.items() if name not in OF_ONE_SESSION}


def environment_of(agent: DeployedAgent, session_id: str, context: dict[str, Any] | None) -> dict[str, str]:
    """The project's variables and secrets, and on top of them what the platform says.

    `context`: what the client passed along.
    """
    idle_seconds = idle_seconds_of(agent)
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
