"""What can happen to a session: the machine's input (see `machine` for what each leads to)."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from voicethere.errors.causes import Cause, Crash, HandlerFailure
from voicethere.wire.control_channel import EndReason
from voicethere.wire.ipc import DataChannelBinary, DataChannelMessage, SpeechEventMessage

AgentInput = DataChannelMessage | DataChannelBinary | SpeechEventMessage
"""What a client's doing becomes for the agent."""


class Timer(enum.StrEnum):
    """The timers a session may have running."""

    HELLO = "hello"
    TELL = "tell"
    ARRIVAL = "arrival"
    REJOIN = "rejoin"
    IDLE = "idle"
    IDLE_GRACE = "idle_grace"
    DRAIN_SPEECH = "drain_speech"
    END_HOOK = "end_hook"
    CRASH_SPEECH = "crash_speech"
    RESTART_1 = "restart_1"
    RESTART_2 = "restart_2"
    RESTART_3 = "restart_3"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened."""


class AgentReady(Event, frozen=True, kw_only=True):
    """The bundle is loaded and `on_agent_start` is done: of the first child, or of one that replaces it."""

    has_idle_hook: bool = False


class AgentStarted(Event, frozen=True, kw_only=True):
    """`on_session_start` is done."""


class AgentEnded(Event, frozen=True, kw_only=True):
    """`on_session_end` is done."""


class HandlerFailed(Event, frozen=True, kw_only=True):
    """A hook raised; `error_hook` has run."""

    failure: HandlerFailure


class PromptUnheard(Event, frozen=True, kw_only=True):
    """A user's prompt came, and the agent has no hook for it; `problem` is for whoever wrote the agent."""

    problem: str


class AgentGone(Event, frozen=True, kw_only=True):
    """The agent's process is gone without being asked."""

    crash: Crash


class ControlOpened(Event, frozen=True, kw_only=True):
    """voice-control is open: the first time, or again after a loss."""


class HelloReceived(Event, frozen=True, kw_only=True):
    """The client's `session_hello` (a context that is within its limits)."""

    customer_context: dict[str, Any]


class ClientSent(Event, frozen=True, kw_only=True):
    """A message of the client's, or a speech event, for the agent."""

    message: AgentInput


class Activity(Event, frozen=True, kw_only=True):
    """Somebody did something that the agent is not told of: a keepalive, or its own words without audio."""

    voice: bool


class ClientClosed(Event, frozen=True, kw_only=True):
    """The client's `session_close`."""


class AgentDisconnects(Event, frozen=True, kw_only=True):
    """The agent asked for the session's end."""

    reason: str | None = None


class PeerLost(Event, frozen=True, kw_only=True):
    """The peer connection is gone; it may come back."""


class IdleHookDone(Event, frozen=True, kw_only=True):
    """`on_idle_timeout` is over; `failure` is set if it raised."""

    failure: HandlerFailure | None = None


class RunnerFault(Event, frozen=True, kw_only=True):
    """Something of the runner failed in a way that this session cannot survive."""

    cause: Cause


class Cancelled(Event, frozen=True, kw_only=True):
    """The session service gave the session up: nobody joined."""


class EndOrdered(Event, frozen=True, kw_only=True):
    """The platform ends the session in order: the runner leaves, or a deploy said so.

    `cut_off`: its agent is answering somebody who is told nothing of a session's end, and so must be told of
    an answer that will not come.
    """

    end_reason: EndReason
    cut_off: bool = False


class SpeechDrained(Event, frozen=True, kw_only=True):
    """All speech that was queued has been played."""


class CrashSpeechDone(Event, frozen=True, kw_only=True):
    """The crash message was played; `failure` says why it was not. `last` is that of its effect."""

    last: bool = True
    failure: Cause | None = None


class Heard(Event, frozen=True, kw_only=True):
    """The client has acknowledged error number `number`."""

    number: int


class Flushed(Event, frozen=True, kw_only=True):
    """Everything on voice-control was acknowledged, or the time for that is over."""

    acknowledged: bool = True


class TornDown(Event, frozen=True, kw_only=True):
    """The peer and the agent's process are gone; `failure` says what could not be closed."""

    failure: Cause | None = None


class RecordsDurable(Event, frozen=True, kw_only=True):
    """Every error recorded so far is durable."""


class TimerFired(Event, frozen=True, kw_only=True):
    """A timer set before ran out."""

    timer: Timer
