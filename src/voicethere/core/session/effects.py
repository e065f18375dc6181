"""What a session's machine wants done, in order: its output."""

from __future__ import annotations

from typing import Any

import msgspec

from voicethere.core.session.events import AgentInput, Timer
from voicethere.errors.causes import Cause
from voicethere.errors.codes import SessionErrorCode
from voicethere.wire.control_channel import EndReason


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """Something to do."""


class StartSession(Effect, frozen=True, kw_only=True):
    """Send `session_start` to the agent."""

    customer_context: dict[str, Any] | None


class ToAgent(Effect, frozen=True, kw_only=True):
    """Hand a message to the agent."""

    message: AgentInput


class RefuseInput(Effect, frozen=True, kw_only=True):
    """Say that a message was dropped: too much waits for an agent that is not there yet."""

    message: AgentInput


class RunIdleHook(Effect, frozen=True, kw_only=True):
    """Send `idle_timeout` to the agent."""


class EndAgentSession(Effect, frozen=True, kw_only=True):
    """Send `session_end` to the agent."""


class Record(Effect, frozen=True, kw_only=True):
    """Make error number `number` of this session, and queue it."""

    number: int
    code: SessionErrorCode
    cause: Cause
    recoverable: bool


class Tell(Effect, frozen=True, kw_only=True):
    """Send error number `number` on voice-control."""

    number: int


class RestartAgent(Effect, frozen=True, kw_only=True):
    """Start another process for the agent: the one before is gone."""


class SpeakCrashMessage(Effect, frozen=True, kw_only=True):
    """Stop what is being said and play the crash message, `last` of all where the session ends.

    Answered by `CrashSpeechDone` with the same `last`.
    """

    last: bool = True


class DrainSpeech(Effect, frozen=True, kw_only=True):
    """Answer `SpeechDrained` once everything queued is played."""


class StopSpeech(Effect, frozen=True, kw_only=True):
    """Stop what is being said."""


class SendClose(Effect, frozen=True, kw_only=True):
    """Send `session_close`."""

    code: str | None = None
    reason: str


class Flush(Effect, frozen=True, kw_only=True):
    """Wait (bounded) until the client has acknowledged everything."""


class TearDown(Effect, frozen=True, kw_only=True):
    """Close the peer and end the agent's process, each bounded."""


class AwaitRecords(Effect, frozen=True, kw_only=True):
    """Answer `RecordsDurable` once every error recorded so far is durable."""


class QueueEnd(Effect, frozen=True, kw_only=True):
    """Queue the session's end."""

    end_reason: EndReason
    failed: bool


class SetTimer(Effect, frozen=True, kw_only=True):
    """(Re)start a timer."""

    timer: Timer
    seconds: float


class CancelTimer(Effect, frozen=True, kw_only=True):
    """Stop a timer."""

    timer: Timer
