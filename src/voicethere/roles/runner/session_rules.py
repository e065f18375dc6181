"""Which rules a session's machine goes by."""

from __future__ import annotations

from voicethere.core.session import Rules
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.wire.relay import AssignSession
from voicethere.wire.settings import AgentCrashPolicy


def rules_of(assignment: AssignSession, settings: RunnerSettings) -> Rules:
    """The deployed project's settings, and the runner's."""
    wanted = assignment.agent.settings
    audio = assignment.agent.mode.has_audio
    idle = wanted.idle_timeout_seconds if audio else wanted.data_only_idle_timeout_seconds
    return Rules(
        has_audio=audio,
        crash_speech=bool(wanted.error_message.strip()),
        restart_child=assignment.agent.agent_crash_policy is AgentCrashPolicy.RESTART_CHILD,
        idle_seconds=float(idle) if wanted.idle_timeout_enabled else None,
        idle_on_voice=wanted.idle_timeout_voice_activity,
        idle_on_messages=wanted.idle_timeout_dc_inbound,
        hello_seconds=settings.hello_seconds,
        tell_seconds=settings.tell_seconds,
        rejoin_seconds=settings.rejoin_seconds,
        idle_grace_seconds=settings.idle_grace_seconds,
    )
