"""The life of one session: a pure state machine that the runner drives.

`step(state, event, rules)` gives the next state and the effects to carry out, in order. It knows nothing of
WebRTC, processes, queues or clocks: timers are effects with a name, and come back as `TimerFired`.

The rules (contract: control-channel.md, "How a session fails"; session-api.md; signaling.md)

- A session is *opening* until the agent has its `session_start`: that waits for the agent to be loaded, for
  voice-control to be open, and for the client's `session_hello` or half a second.
- A client that has never come is waited for `arrival_seconds`, longer than whoever assigned the session waits
  for one to join: it may have joined at a gateway that died before it could say so.
- What a client sends before that is kept (bounded) and handed over right behind `session_start`.
- The first thing that ends a session wins. Exactly one error with `recoverable: false` is told to the client,
  and none after it; what fails later (crash speech, teardown) is recorded and not told.
- An error is told at once where voice-control is open, and else as soon as it opens: a session whose agent
  died before its client arrived waits for that client, within limits. What went into a connection that turns
  out to be dead, and was not acknowledged, is told again on the next; for the error that ends the session
  one such return is waited for.
- An agent that crashes is started again where the rules say so, at most three times within 60 seconds: a
  restart takes one of three slots, whose timer gives it back. The crash is told as recoverable, and the
  session goes on: the new child gets `session_start` and what the client sent meanwhile. A bundle that
  cannot be loaded, and an agent that dies in its idle hook, end the session.
- *Failing* is: told, then the crash message where there is audio. Then, as for every end: flush, tear down,
  and the end is queued only once every error is durable.
- The idle countdown begins anew with every activity that the settings count. While user or agent speaks it
  stands still, where speech counts.
- A clean end (the client's, the agent's or the platform's wish) gives `on_session_end` its chance and records
  nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from voicethere.core.session.early import fits
from voicethere.core.session.effects import (
    AwaitRecords,
    CancelTimer,
    DrainSpeech,
    Effect,
    EndAgentSession,
    Flush,
    QueueEnd,
    Record,
    RefuseInput,
    RestartAgent,
    RunIdleHook,
    SendClose,
    SetTimer,
    SpeakCrashMessage,
    StartSession,
    StopSpeech,
    TearDown,
    Tell,
    ToAgent,
)
from voicethere.core.session.events import (
    Activity,
    AgentDisconnects,
    AgentEnded,
    AgentGone,
    AgentReady,
    AgentStarted,
    Cancelled,
    ClientClosed,
    ClientSent,
    ControlOpened,
    CrashSpeechDone,
    EndOrdered,
    Event,
    Flushed,
    HandlerFailed,
    Heard,
    HelloReceived,
    IdleHookDone,
    PeerLost,
    RecordsDurable,
    RunnerFault,
    SpeechDrained,
    Timer,
    TimerFired,
    TornDown,
)
from voicethere.core.session.state import Phase, Rules, SessionState
from voicethere.errors.causes import Cause, Crash, CrashKind
from voicethere.errors.codes import SessionErrorCode
from voicethere.wire.control_channel import EndReason, SpeechEventType
from voicethere.wire.ipc import SpeechEventMessage

_SPEAKING: dict[SpeechEventType, tuple[str, bool]] = {
    SpeechEventType.USER_SPEAKING_START: ("user", True),
    SpeechEventType.USER_SPEAKING_END: ("user", False),
    SpeechEventType.AGENT_SPEAKING_START: ("agent", True),
    SpeechEventType.AGENT_SPEAKING_END: ("agent", False),
}
"""Who speaks from, or until, which event: the idle countdown waits for both."""
_RESTART_SLOTS = (Timer.RESTART_1, Timer.RESTART_2, Timer.RESTART_3)
_CLOSING = frozenset({Phase.TEARING_DOWN, Phase.STORING})
_CLEAN_ENDING = frozenset({Phase.DRAINING_SPEECH, Phase.ENDING_AGENT})


class _Step:
    """One step under way: the state so far and the effects so far."""

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
        slot = next((slot for slot in _RESTART_SLOTS if slot not in self.state.timers), None)
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


# ------------------------------------------------------------------ what each event does


def _agent_ready(step: _Step, event: AgentReady) -> None:
    step.change(agent_ready=True, has_idle_hook=event.has_idle_hook)
    if step.state.phase is Phase.OPENING and not step.state.control_open:
        step.set_timer(Timer.ARRIVAL, step.rules.arrival_seconds)
    if step.wants_more():
        step.start_if_ready()


def _agent_ended(step: _Step, event: AgentEnded) -> None:
    if step.state.phase is Phase.ENDING_AGENT:
        step.flush()


def _handler_failed(step: _Step, event: HandlerFailed) -> None:
    _ending_failure(step, SessionErrorCode.AGENT_HANDLER_FAILED, event.failure, EndReason.AGENT_ERROR)


def _agent_gone(step: _Step, event: AgentGone) -> None:
    if step.state.phase in (Phase.OPENING, Phase.LIVE) and step.restart_agent(event.crash):
        return
    step.change(agent_gone=True)
    _ending_failure(step, SessionErrorCode.AGENT_CHILD_CRASHED, event.crash, EndReason.AGENT_ERROR)


def _ending_failure(step: _Step, code: SessionErrorCode, cause: Cause, reason: EndReason) -> None:
    if step.wants_more():
        step.fail(code, cause, reason)
    elif step.state.phase in _CLEAN_ENDING:
        # The session is ending already: nobody is waited for, and an idle end has been told its one error.
        told = step.state.end_reason is EndReason.IDLE_TIMEOUT
        step.record(code, cause, recoverable=False, tell=not told and step.state.control_open)
        step.change(failed=True, end_reason=step.state.end_reason if told else reason)
        step.flush()


def _control_opened(step: _Step, event: ControlOpened) -> None:
    step.change(control_open=True)
    step.cancel(Timer.ARRIVAL, Timer.REJOIN)
    if step.state.phase in _CLOSING:
        return
    step.unsay()
    if step.state.phase is Phase.FLUSHING and step.state.ending in step.state.untold:
        step.change(phase=Phase.FAILING, ending=None)
    if step.state.phase is Phase.FAILING:
        if step.state.untold:
            step.tell()
            if Timer.CRASH_SPEECH not in step.state.timers:
                step.after_telling()
        return
    step.tell()
    if step.state.phase is Phase.OPENING and not step.state.hello_over:
        step.set_timer(Timer.HELLO, step.rules.hello_seconds)
    if step.state.phase is Phase.LIVE:
        step.restart_idle()


def _hello(step: _Step, event: HelloReceived) -> None:
    # A hello on a rejoin replaces the context that later errors echo.
    step.change(customer_context=event.customer_context, hello_over=True)
    if step.state.phase is Phase.OPENING:
        step.start_if_ready()


def _client_sent(step: _Step, event: ClientSent) -> None:
    if not step.wants_more():
        return
    if step.state.agent_has_session:
        step.do(ToAgent(message=event.message))
    elif fits(step.state.early, event.message):
        step.change(early=(*step.state.early, event.message))
    else:
        step.do(RefuseInput(message=event.message))
    if isinstance(event.message, SpeechEventMessage):
        _speech(step, event.message.event)
    else:
        _activity(step, Activity(voice=False))


def _speech(step: _Step, event: SpeechEventType) -> None:
    """Speech is activity where it begins and where it ends; what is made of it is not."""
    if event not in _SPEAKING:
        return
    who, speaks = _SPEAKING[event]
    speaking = step.state.speaking | {who} if speaks else step.state.speaking - {who}
    step.change(speaking=speaking)
    _activity(step, Activity(voice=True))


def _activity(step: _Step, event: Activity) -> None:
    counts = step.rules.idle_on_voice if event.voice else step.rules.idle_on_messages
    if counts and step.state.phase is Phase.LIVE:
        step.restart_idle()


def _client_closed(step: _Step, event: ClientClosed) -> None:
    if step.wants_more() or step.state.phase is Phase.DRAINING_SPEECH:
        step.do(StopSpeech())
        step.end_cleanly(EndReason.CLIENT_CLOSE_SIGNAL)
    elif step.state.phase is Phase.FAILING:
        step.forget_telling()
        step.flush()


def _agent_disconnects(step: _Step, event: AgentDisconnects) -> None:
    if step.wants_more():
        step.cancel(*step.state.timers)
        step.change(phase=Phase.DRAINING_SPEECH, end_reason=EndReason.AGENT_DISCONNECTED)
        step.set_timer(Timer.DRAIN_SPEECH, step.rules.drain_speech_seconds)
        step.do(DrainSpeech())


def _speech_drained(step: _Step, event: SpeechDrained) -> None:
    if step.state.phase is Phase.DRAINING_SPEECH:
        step.do(SendClose(reason=EndReason.AGENT_DISCONNECTED.value))
        step.end_cleanly(EndReason.AGENT_DISCONNECTED)


def _peer_lost(step: _Step, event: PeerLost) -> None:
    phase, never_sent = step.state.phase, step.state.untold
    step.change(control_open=False)
    step.unsay()
    if phase.open or (phase is Phase.FAILING and never_sent):
        if Timer.REJOIN not in step.state.timers:
            step.set_timer(Timer.REJOIN, step.rules.rejoin_seconds)
    elif phase in (Phase.FAILING, Phase.FLUSHING) and step.state.ending in step.state.untold:
        step.cancel(Timer.CRASH_SPEECH)
        step.wait_for_return()
    elif phase is Phase.FAILING:
        # Nobody is there to hear the rest of the crash message.
        step.forget_telling()
        step.flush()


def _idle_hook_done(step: _Step, event: IdleHookDone) -> None:
    if step.state.phase is not Phase.IDLE_HOOK:
        return
    if event.failure is not None:
        step.record(SessionErrorCode.IDLE_TIMEOUT_CALLBACK_FAILED, event.failure, recoverable=True, tell=True)
    step.end_idle()


def _runner_fault(step: _Step, event: RunnerFault) -> None:
    _ending_failure(step, SessionErrorCode.RUNNER_INTERNAL, event.cause, EndReason.ERROR)


def _cancelled(step: _Step, event: Cancelled) -> None:
    if step.wants_more():
        step.end_cleanly(EndReason.CLIENT_DISCONNECTED)
    elif step.state.phase is Phase.FAILING and step.state.untold:
        step.forget_telling()
        step.flush()


def _end_ordered(step: _Step, event: EndOrdered) -> None:
    if step.wants_more() or step.state.phase is Phase.DRAINING_SPEECH:
        step.do(StopSpeech(), SendClose(reason=event.end_reason.value))
        step.end_cleanly(event.end_reason)
    elif step.state.phase is Phase.FAILING:
        step.forget_telling()
        step.flush()


def _crash_speech_done(step: _Step, event: CrashSpeechDone) -> None:
    # One that was being said when the session's end began is cut off by the last one, and does not count.
    ending = step.state.phase is Phase.FAILING
    if event.last is not ending or Timer.CRASH_SPEECH not in step.state.timers:
        return
    step.cancel(Timer.CRASH_SPEECH)
    if event.failure is not None:
        _crash_message_failed(step, event.failure)
    if ending:
        step.flush()


def _crash_message_failed(step: _Step, failure: Cause) -> None:
    """What follows the ending error is not told; where the session goes on, it is, if there is somebody."""
    ending = step.state.phase is Phase.FAILING
    if ending or step.state.control_open:
        step.record(SessionErrorCode.RUNNER_INTERNAL, failure, recoverable=not ending, tell=not ending)


def _heard(step: _Step, event: Heard) -> None:
    step.change(unheard=tuple(number for number in step.state.unheard if number != event.number))


def _flushed(step: _Step, event: Flushed) -> None:
    if step.state.phase is not Phase.FLUSHING:
        return
    if not event.acknowledged and step.state.ending in step.state.unheard:
        step.change(control_open=False)
        step.unsay()
        step.wait_for_return()
    else:
        step.change(phase=Phase.TEARING_DOWN)
        step.do(TearDown())


def _torn_down(step: _Step, event: TornDown) -> None:
    if step.state.phase is not Phase.TEARING_DOWN:
        return
    if event.failure is not None:
        step.change(failed=True)
        step.record(SessionErrorCode.SESSION_END_FAILED, event.failure, recoverable=False, tell=False)
    step.change(phase=Phase.STORING)
    step.do(AwaitRecords())


def _records_durable(step: _Step, event: RecordsDurable) -> None:
    if step.state.phase is Phase.STORING:
        step.change(phase=Phase.ENDED)
        step.do(QueueEnd(end_reason=step.state.end_reason or EndReason.ERROR, failed=step.state.failed))


def _timer_fired(step: _Step, event: TimerFired) -> None:
    if event.timer not in step.state.timers:
        return  # it was cancelled while it was on its way
    step.change(timers=step.state.timers - {event.timer})
    _TIMERS[event.timer](step)


def _hello_over(step: _Step) -> None:
    step.change(hello_over=True)
    step.start_if_ready()


def _nobody_to_tell(step: _Step) -> None:
    step.forget_telling()
    step.flush()


def _not_rejoined(step: _Step) -> None:
    if step.state.phase is Phase.FAILING:
        _nobody_to_tell(step)
    else:
        step.end_cleanly(EndReason.CLIENT_DISCONNECTED)


def _idle(step: _Step) -> None:
    if not step.state.has_idle_hook:
        step.end_idle()
        return
    step.change(phase=Phase.IDLE_HOOK)
    step.set_timer(Timer.IDLE_GRACE, step.rules.idle_grace_seconds)
    step.do(RunIdleHook())


def _idle_grace_over(step: _Step) -> None:
    step.record(
        SessionErrorCode.IDLE_TIMEOUT_CALLBACK_TIMED_OUT,
        f"on_idle_timeout was not done after its {step.rules.idle_grace_seconds:g} s of grace",
        recoverable=True,
        tell=True,
    )
    step.end_idle()


def _crash_speech_overdue(step: _Step) -> None:
    limit = step.rules.crash_speech_seconds
    _crash_message_failed(step, f"the crash message was not played within {limit:g} s")
    if step.state.phase is Phase.FAILING:
        step.flush()


def _drain_overdue(step: _Step) -> None:
    step.do(StopSpeech())
    _speech_drained(step, SpeechDrained())


def _slot_free(step: _Step) -> None:
    return  # its timer is gone, and that is all there is to it


def _ignore(step: _Step, event: Event) -> None:
    return


_TIMERS: dict[Timer, Callable[[_Step], None]] = {
    Timer.HELLO: _hello_over,
    Timer.TELL: _nobody_to_tell,
    Timer.ARRIVAL: _not_rejoined,
    Timer.REJOIN: _not_rejoined,
    Timer.IDLE: _idle,
    Timer.IDLE_GRACE: _idle_grace_over,
    Timer.DRAIN_SPEECH: _drain_overdue,
    Timer.END_HOOK: _Step.flush,
    Timer.CRASH_SPEECH: _crash_speech_overdue,
    **dict.fromkeys(_RESTART_SLOTS, _slot_free),
}

_EVENTS: dict[type[Event], Callable[[_Step, Any], None]] = {
    AgentReady: _agent_ready,
    AgentStarted: _ignore,
    AgentEnded: _agent_ended,
    HandlerFailed: _handler_failed,
    AgentGone: _agent_gone,
    ControlOpened: _control_opened,
    HelloReceived: _hello,
    ClientSent: _client_sent,
    Activity: _activity,
    ClientClosed: _client_closed,
    AgentDisconnects: _agent_disconnects,
    SpeechDrained: _speech_drained,
    PeerLost: _peer_lost,
    IdleHookDone: _idle_hook_done,
    RunnerFault: _runner_fault,
    Cancelled: _cancelled,
    EndOrdered: _end_ordered,
    CrashSpeechDone: _crash_speech_done,
    Flushed: _flushed,
    Heard: _heard,
    TornDown: _torn_down,
    RecordsDurable: _records_durable,
    TimerFired: _timer_fired,
}


def step(state: SessionState, event: Event, rules: Rules) -> tuple[SessionState, Iterable[Effect]]:
    """The next state and what to do, in order. Never raises; an ended session ignores everything."""
    if state.phase is Phase.ENDED:
        return state, ()
    under_way = _Step(state, rules)
    _EVENTS[type(event)](under_way, event)
    return under_way.state, tuple(under_way.effects)
