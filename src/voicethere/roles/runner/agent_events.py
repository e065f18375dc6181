"""What a session's host hears from its agent child, in the order in which it happened.

Messages that need no more than checking are passed on as they are on the wire (`voicethere.wire.ipc`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from voicethere.errors.causes import Crash, HandlerFailure
from voicethere.wire.ipc import (
    AgentLoaded,
    DisconnectClient,
    HandlerFinished,
    HandlerStarted,
    IdleTimeoutDone,
    SendBinaryToClient,
    SendToClient,
    SessionEndAck,
    SessionStartAck,
    Speak,
    SpeakEnd,
    SpeakStart,
    SpeakText,
)


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the agent's log: from `agent_log`, from its output, or a remark of the runner on it.

    Bounded and redacted. `time` is a wire time, of the runner's clock.
    """

    level: str
    message: str
    time: str
    fields: dict[str, Any] | None = None
    session_id: str | None = None


class AgentError(HandlerFailure, frozen=True, kw_only=True):
    """A handler raised and `error_hook` has run. At most once for a session.

    `session_id` is None where it cannot be told which session is meant: then all of the child's are, those
    that it is yet to be given too.
    """

    session_id: str | None


class ChildGone(msgspec.Struct, frozen=True, kw_only=True):
    """The last event: the process has ended. `crash` is None where it was asked to stop."""

    crash: Crash | None


Spoken = Speak | SpeakStart | SpeakText | SpeakEnd
"""What the agent says. Of a session's streams one is open at a time."""

AgentEvent = (
    AgentLoaded
    | SessionStartAck
    | HandlerStarted
    | HandlerFinished
    | Spoken
    | SendToClient
    | SendBinaryToClient
    | LogLine
    | AgentError
    | IdleTimeoutDone
    | DisconnectClient
    | SessionEndAck
    | ChildGone
)
