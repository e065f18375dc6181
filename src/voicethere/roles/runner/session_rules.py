"""Which rules a session's machine goes by."""

from __future__ import annotations

from voicethere.core.session import Rules
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.wire.relay import AssignSession, DeployedAgent
from voicethere.wire.settings import AgentCrashPolicy


def idle_seconds_of(agent: DeployedAgent) -> float | None:
    """After how many seconds of nothing its sessions end; None: never."""
    wanted = agent.settings
    if not wanted.idle_timeout_enabled:
        return None
    idle = wanted.idle_timeout_seconds if agent.mode.has_audio else wanted.data_only_idle_timeout_seconds
    return float(idle)


def rules_of(assignment: AssignSession, settings: RunnerSettings) -> Rules:
    """The deployed project's settings, and the runner's.

    A conversation has no hello. It is waited for as long as an error waits for its client: nobody is on the
    line, and gateways and databases that are restarted come back.
    """
    wanted = assignment.agent.settings
    return Rules(
        has_audio=assignment.agent.mode.has_audio,
        crash_speech=bool(wanted.error_message.strip()),
        restart_child=assignment.agent.agent_crash_policy is AgentCrashPolicy.RESTART_CHILD,
        idle_seconds=idle_seconds_of(assignment.agent),
        idle_on_voice=wanted.idle_timeout_voice_activity,
        idle_on_messages=wanted.idle_timeout_dc_inbound,
        hello_seconds=0.0 if assignment.chat else settings.hello_seconds,
        tell_seconds=settings.tell_seconds,
        arrival_seconds=settings.arrival_seconds,
        rejoin_seconds=settings.tell_seconds if assignment.chat else settings.rejoin_seconds,
        idle_grace_seconds=settings.idle_grace_seconds,
    )
