"""What the session's machine is told of what the agent's child does."""

from __future__ import annotations

from voicethere.core.session import Event, events
from voicethere.errors import Crash, HandlerFailure
from voicethere.roles.runner.agent_events import AgentError, AgentEvent, ChildGone
from voicethere.wire import ipc


def machine_event(event: AgentEvent) -> Event | None:
    """The machine's event for the child's; None where it is none of its business."""
    match event:
        case ipc.AgentLoaded(hooks=hooks):
            return events.AgentReady(has_idle_hook="on_idle_timeout" in hooks)
        case ipc.SessionStartAck():
            return events.AgentStarted()
        case ipc.SessionEndAck():
            return events.AgentEnded()
        case ipc.DisconnectClient(reason=reason):
            return events.AgentDisconnects(reason=reason)
        case ipc.IdleTimeoutDone(error=None):
            return events.IdleHookDone()
        case ipc.IdleTimeoutDone(error=str(message), stack=stack):
            failure = HandlerFailure(hook="on_idle_timeout", message=message, stack=stack or "")
            return events.IdleHookDone(failure=failure)
        case AgentError():
            return events.HandlerFailed(failure=event)
        case ChildGone(crash=Crash() as crash):
            return events.AgentGone(crash=crash)
        case _:
            return None
