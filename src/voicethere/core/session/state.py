"""What a session's machine knows (`SessionState`), and the settings that it goes by (`Rules`)."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from voicethere.core.session.events import AgentInput, Timer
from voicethere.wire.control_channel import EndReason


class Phase(enum.StrEnum):
    """Where a session stands; it moves down this list.

    The one way back, once: an ending error that nobody heard goes from *flushing* to *failing* again.
    """

    OPENING = "opening"
    LIVE = "live"
    IDLE_HOOK = "idle_hook"
    DRAINING_SPEECH = "draining_speech"
    ENDING_AGENT = "ending_agent"
    FAILING = "failing"
    FLUSHING = "flushing"
    TEARING_DOWN = "tearing_down"
    STORING = "storing"
    ENDED = "ended"

    @property
    def open(self) -> bool:
        """Whether nothing has decided the session's end yet; the idle limit may be about to."""
        return self in (Phase.OPENING, Phase.LIVE, Phase.IDLE_HOOK)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that decide a session's life; all times in seconds."""

    has_audio: bool
    crash_speech: bool
    restart_child: bool = False
    idle_seconds: float | None
    idle_on_voice: bool = True
    idle_on_messages: bool = True
    hello_seconds: float = 0.5
    tell_seconds: float = 120.0
    arrival_seconds: float = 180.0
    rejoin_seconds: float = 30.0
    idle_grace_seconds: float = 30.0
    drain_speech_seconds: float = 15.0
    end_hook_seconds: float = 5.0
    crash_speech_seconds: float = 30.0
    restart_window_seconds: float = 60.0


class SessionState(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what comes next.

    `untold` are errors that the client has yet to hear of; `unheard` were sent, but not acknowledged yet.
    `ending` is the error that ends the session, until the session has once waited for a client to hear it.
    """

    phase: Phase = Phase.OPENING
    agent_ready: bool = False
    agent_gone: bool = False
    has_idle_hook: bool = False
    control_open: bool = False
    hello_over: bool = False
    agent_has_session: bool = False
    customer_context: dict[str, Any] | None = None
    early: tuple[AgentInput, ...] = ()
    records: int = 0
    untold: tuple[int, ...] = ()
    unheard: tuple[int, ...] = ()
    ending: int | None = None
    speaking: frozenset[str] = frozenset()
    end_reason: EndReason | None = None
    failed: bool = False
    timers: frozenset[Timer] = frozenset()
