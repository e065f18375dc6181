"""One step of a session's machine under way, and the moves that it is made of: tell an error, go on with
another child, end. Which event leads to which move, and the rules, are in `machine`.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from voicethere.core.session.effects import (
    CancelTimer,
    Effect,
    EndAgentSession,
    Flush,
    Record,
    RestartAgent,
    SendClose,
    SetTimer,
    SpeakCrashMessage,
    StartSession,
    StopSpeech,
    Tell,
    ToAgent,
)
from voicethere.core.session.events import Timer
from voicethere.core.session.state import Phase, Rules, SessionState
from voicethere.errors.causes import Cause, Crash, CrashKind
from voicethere.errors.codes import SessionErrorCode
from voicethere.wire.control_channel import EndReason

RESTART_SLOTS = (Timer.RESTART_1, Timer.RESTART_2, Timer.RESTART_3)


class Step:
    """The state so far and the effects so far."""

    def __init__(self, state: SessionState, rules: Rules) -> None:
        self.state = state
        self.rules = rules
        self.effects: list[Effect] = []

    def change(self, **fields: Any) -> None:
        self.state = replace(self.state, **fields)

    def do(self, *effects: Effect) -> None:
        self.effects.extend(effects)

    def set_timer(self, timer: Timer, seconds: float) -> None:
        self.change(timers=self.state.timers | {timer})
        self.do(SetTimer(timer=timer, seconds=seconds))

    def cancel(self, *timers: Timer) -> None:
        for timer in timers:
            if timer in self.state.timers:
                self.change(timers=self.state.timers - {timer})
                self.do(CancelTimer(timer=timer))

    # -- errors

    def record(self, code: SessionErrorCode, cause: Cause, *, recoverable: bool, tell: bool) -> None:
        number = self.state.records
        self.change(records=number + 1)
        self.do(Record(number=number, code=code, cause=cause, recoverable=recoverable))
        if tell:
            self.change(untold=(*self.state.untold, number))
            self.tell()

    def tell(self) -> None:
        if self.state.control_open:
            self.do(*(Tell(number=number) for number in self.state.untold))
            self.change(untold=(), unheard=(*self.state.unheard, *self.state.untold))

    def unsay(self) -> None:
        """Whatever the connection at hand has not brought to the client is yet to be told."""
        self.change(untold=(*self.state.unheard, *self.state.untold), unheard=())

    def forget_telling(self) -> None:
        """Nobody is waited for: what was not heard stays unheard."""
        self.change(untold=(), unheard=(), ending=None)

    def wait_for_return(self) -> None:
        """The error that ends the session went into a connection that was dead: a client may come for it."""
        self.change(phase=Phase.FAILING, ending=None)
        self.set_timer(Timer.REJOIN, self.rules.rejoin_seconds)

    # -- the ways on

    def restart_idle(self) -> None:
        if self.rules.idle_seconds is None or self.state.phase is not Phase.LIVE:
            return
        if self.rules.idle_on_voice and self.state.speaking:
            self.cancel(Timer.IDLE)
        else:
            self.set_timer(Timer.IDLE, self.rules.idle_seconds)

    def start_if_ready(self) -> None:
        state = self.state
        if state.agent_has_session or not state.agent_ready:
            return
        # A session that was live before its agent crashed waits for nothing else.
        if state.phase is Phase.OPENING and not (state.control_open and state.hello_over):
            return
        began = state.phase is Phase.OPENING
        self.cancel(Timer.HELLO)
        self.do(StartSession(customer_context=state.customer_context))
        self.do(*(ToAgent(message=message) for message in state.early))
        self.change(agent_has_session=True, early=(), phase=Phase.LIVE)
        if began:
            self.restart_idle()

    def fail(self, code: SessionErrorCode, cause: Cause, reason: EndReason) -> None:
        """The error that ends the session."""
        self.change(phase=Phase.FAILING, end_reason=reason, failed=True)
        self.cancel(*self.state.timers - {Timer.REJOIN})
        self.do(StopSpeech())
        self.change(ending=self.state.records)
        self.record(code, cause, recoverable=False, tell=True)
        self.after_telling()

    def restart_agent(self, crash: Crash) -> bool:
        """Go on with another child; False where this crash must end the session."""
        if (
            not self.rules.restart_child
            or crash.kind is CrashKind.LOAD_FAILURE
            or self.state.phase is Phase.IDLE_HOOK
        ):
            return False
        slot = next((slot for slot in RESTART_SLOTS if slot not in self.state.timers), None)
        if slot is None:
            return False
        self.set_timer(slot, self.rules.restart_window_seconds)
        self.change(agent_ready=False, agent_has_session=False, has_idle_hook=False)
        self.do(StopSpeech())
        self.record(SessionErrorCode.AGENT_CHILD_CRASHED, crash, recoverable=True, tell=True)
        self.do(RestartAgent())
        self.apologize()
        return True

    def apologize(self) -> None:
        """Say the crash message in a session that goes on: to somebody, and not while it is being said."""
        wanted = self.rules.has_audio and self.rules.crash_speech and self.state.phase is Phase.LIVE
        if wanted and self.state.control_open and Timer.CRASH_SPEECH not in self.state.timers:
            self.set_timer(Timer.CRASH_SPEECH, self.rules.crash_speech_seconds)
            self.do(SpeakCrashMessage(last=False))

    def after_telling(self) -> None:
        if self.state.untold:
            if not self.state.timers & {Timer.TELL, Timer.REJOIN}:
                self.set_timer(Timer.TELL, self.rules.tell_seconds)
            return
        self.cancel(Timer.TELL, Timer.REJOIN)
        if self.rules.has_audio and self.rules.crash_speech:
            self.set_timer(Timer.CRASH_SPEECH, self.rules.crash_speech_seconds)
            self.do(SpeakCrashMessage())
        else:
            self.flush()

    def end_cleanly(self, reason: EndReason) -> None:
        """Give `on_session_end` its chance, then close."""
        self.change(end_reason=reason)
        self.cancel(*self.state.timers)
        if self.state.agent_has_session and not self.state.agent_gone:
            self.change(phase=Phase.ENDING_AGENT)
            self.set_timer(Timer.END_HOOK, self.rules.end_hook_seconds)
            self.do(EndAgentSession())
        else:
            self.flush()

    def end_idle(self) -> None:
        """Only after the hook: the idle end is an error that is told, with a `session_close` behind it."""
        self.change(end_reason=EndReason.IDLE_TIMEOUT)
        self.cancel(*self.state.timers)
        limit = self.rules.idle_seconds or 0
        self.record(
            SessionErrorCode.SESSION_IDLE_TIMEOUT,
            f"nothing happened for {limit:g} s, the session's idle limit",
            recoverable=False,
            tell=True,
        )
        self.change(untold=())
        self.do(SendClose(code="idle_timeout", reason=EndReason.IDLE_TIMEOUT.value))
        if self.state.agent_gone or not self.state.agent_has_session:
            self.flush()
        else:
            self.change(phase=Phase.ENDING_AGENT)
            self.set_timer(Timer.END_HOOK, self.rules.end_hook_seconds)
            self.do(EndAgentSession())

    def flush(self) -> None:
        self.change(phase=Phase.FLUSHING)
        self.cancel(*self.state.timers)
        self.do(Flush())

    def wants_more(self) -> bool:
        return self.state.phase.open
