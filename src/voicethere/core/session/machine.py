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
- A prompt of a chat for which the agent has no hook is an error that is told, so that nobody waits for an
  answer; the session goes on, since its agent may speak by itself.
- The idle countdown begins anew with every activity that the settings count. While user or agent speaks it
  stands still, where speech counts.
- A clean end (the client's, the agent's or the platform's wish) gives `on_session_end` its chance and records
  nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from voicethere.core.session.early import fits
from voicethere.core.session.effects import (
    AwaitRecords,
    DrainSpeech,
    Effect,
    QueueEnd,
    RefuseInput,
    RunIdleHook,
    SendClose,
    StopSpeech,
    TearDown,
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
    PromptUnheard,
    RecordsDurable,
    RunnerFault,
    SpeechDrained,
    Timer,
    TimerFired,
    TornDown,
)
from voicethere.core.session.moves import RESTART_SLOTS, Step
from voicethere.core.session.state import Phase, Rules, SessionState
from voicethere.errors.causes import Cause
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
_CLOSING = frozenset({Phase.TEARING_DOWN, Phase.STORING})
_CLEAN_ENDING = frozenset({Phase.DRAINING_SPEECH, Phase.ENDING_AGENT})


def _agent_ready(step: Step, event: AgentReady) -> None:
    step.change(agent_ready=True, has_idle_hook=event.has_idle_hook)
    if step.state.phase is Phase.OPENING and not step.state.control_open:
        step.set_timer(Timer.ARRIVAL, step.rules.arrival_seconds)
    if step.wants_more():
        step.start_if_ready()


def _agent_ended(step: Step, event: AgentEnded) -> None:
    if step.state.phase is Phase.ENDING_AGENT:
        step.flush()


def _handler_failed(step: Step, event: HandlerFailed) -> None:
    _ending_failure(step, SessionErrorCode.AGENT_HANDLER_FAILED, event.failure, EndReason.AGENT_ERROR)


def _prompt_unheard(step: Step, event: PromptUnheard) -> None:
    if step.wants_more():
        step.record(SessionErrorCode.AGENT_HANDLER_FAILED, event.problem, recoverable=True, tell=True)


def _agent_gone(step: Step, event: AgentGone) -> None:
    if step.state.phase in (Phase.OPENING, Phase.LIVE) and step.restart_agent(event.crash):
        return
    step.change(agent_gone=True)
    _ending_failure(step, SessionErrorCode.AGENT_CHILD_CRASHED, event.crash, EndReason.AGENT_ERROR)


def _ending_failure(step: Step, code: SessionErrorCode, cause: Cause, reason: EndReason) -> None:
    if step.wants_more():
        step.fail(code, cause, reason)
    elif step.state.phase in _CLEAN_ENDING:
        # The session is ending already: nobody is waited for, and an idle end has been told its one error.
        told = step.state.end_reason is EndReason.IDLE_TIMEOUT
        step.record(code, cause, recoverable=False, tell=not told and step.state.control_open)
        step.change(failed=True, end_reason=step.state.end_reason if told else reason)
        step.flush()


def _control_opened(step: Step, event: ControlOpened) -> None:
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


def _hello(step: Step, event: HelloReceived) -> None:
    # A hello on a rejoin replaces the context that later errors echo.
    step.change(customer_context=event.customer_context, hello_over=True)
    if step.state.phase is Phase.OPENING:
        step.start_if_ready()


def _client_sent(step: Step, event: ClientSent) -> None:
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


def _speech(step: Step, event: SpeechEventType) -> None:
    """Speech is activity where it begins and where it ends; what is made of it is not."""
    if event not in _SPEAKING:
        return
    who, speaks = _SPEAKING[event]
    speaking = step.state.speaking | {who} if speaks else step.state.speaking - {who}
    step.change(speaking=speaking)
    _activity(step, Activity(voice=True))


def _activity(step: Step, event: Activity) -> None:
    counts = step.rules.idle_on_voice if event.voice else step.rules.idle_on_messages
    if counts and step.state.phase is Phase.LIVE:
        step.restart_idle()


def _client_closed(step: Step, event: ClientClosed) -> None:
    if step.wants_more() or step.state.phase is Phase.DRAINING_SPEECH:
        step.do(StopSpeech())
        step.end_cleanly(EndReason.CLIENT_CLOSE_SIGNAL)
    elif step.state.phase is Phase.FAILING:
        step.forget_telling()
        step.flush()


def _agent_disconnects(step: Step, event: AgentDisconnects) -> None:
    if step.wants_more():
        step.cancel(*step.state.timers)
        step.change(phase=Phase.DRAINING_SPEECH, end_reason=EndReason.AGENT_DISCONNECTED)
        step.set_timer(Timer.DRAIN_SPEECH, step.rules.drain_speech_seconds)
        step.do(DrainSpeech())


def _speech_drained(step: Step, event: SpeechDrained) -> None:
    if step.state.phase is Phase.DRAINING_SPEECH:
        step.do(SendClose(reason=EndReason.AGENT_DISCONNECTED.value))
        step.end_cleanly(EndReason.AGENT_DISCONNECTED)


def _peer_lost(step: Step, event: PeerLost) -> None:
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


def _idle_hook_done(step: Step, event: IdleHookDone) -> None:
    if step.state.phase is not Phase.IDLE_HOOK:
        return
    if event.failure is not None:
        step.record(SessionErrorCode.IDLE_TIMEOUT_CALLBACK_FAILED, event.failure, recoverable=True, tell=True)
    step.end_idle()


def _runner_fault(step: Step, event: RunnerFault) -> None:
    _ending_failure(step, SessionErrorCode.RUNNER_INTERNAL, event.cause, EndReason.ERROR)


def _cancelled(step: Step, event: Cancelled) -> None:
    if step.wants_more():
        step.end_cleanly(EndReason.CLIENT_DISCONNECTED)
    elif step.state.phase is Phase.FAILING and step.state.untold:
        step.forget_telling()
        step.flush()


def _end_ordered(step: Step, event: EndOrdered) -> None:
    if step.wants_more() or step.state.phase is Phase.DRAINING_SPEECH:
        if event.cut_off:
            problem = (
                f"the platform ended the session ({event.end_reason.value}) while its agent was answering"
            )
            step.record(SessionErrorCode.RUNNER_INTERNAL, problem, recoverable=True, tell=True)
        step.do(StopSpeech(), SendClose(reason=event.end_reason.value))
        step.end_cleanly(event.end_reason)
    elif step.state.phase is Phase.FAILING:
        step.forget_telling()
        step.flush()


def _crash_speech_done(step: Step, event: CrashSpeechDone) -> None:
    # One that was being said when the session's end began is cut off by the last one, and does not count.
    ending = step.state.phase is Phase.FAILING
    if event.last is not ending or Timer.CRASH_SPEECH not in step.state.timers:
        return
    step.cancel(Timer.CRASH_SPEECH)
    if event.failure is not None:
        _crash_message_failed(step, event.failure)
    if ending:
        step.flush()


def _crash_message_failed(step: Step, failure: Cause) -> None:
    """What follows the ending error is not told; where the session goes on, it is, if there is somebody."""
    ending = step.state.phase is Phase.FAILING
    if ending or step.state.control_open:
        step.record(SessionErrorCode.RUNNER_INTERNAL, failure, recoverable=not ending, tell=not ending)


def _heard(step: Step, event: Heard) -> None:
    step.change(unheard=tuple(number for number in step.state.unheard if number != event.number))


def _flushed(step: Step, event: Flushed) -> None:
    if step.state.phase is not Phase.FLUSHING:
        return
    if not event.acknowledged and step.state.ending in step.state.unheard:
        step.change(control_open=False)
        step.unsay()
        step.wait_for_return()
    else:
        step.change(phase=Phase.TEARING_DOWN)
        step.do(TearDown())


def _torn_down(step: Step, event: TornDown) -> None:
    if step.state.phase is not Phase.TEARING_DOWN:
        return
    if event.failure is not None:
        step.change(failed=True)
        step.record(SessionErrorCode.SESSION_END_FAILED, event.failure, recoverable=False, tell=False)
    step.change(phase=Phase.STORING)
    step.do(AwaitRecords())


def _records_durable(step: Step, event: RecordsDurable) -> None:
    if step.state.phase is Phase.STORING:
        step.change(phase=Phase.ENDED)
        step.do(QueueEnd(end_reason=step.state.end_reason or EndReason.ERROR, failed=step.state.failed))


def _timer_fired(step: Step, event: TimerFired) -> None:
    if event.timer not in step.state.timers:
        return  # it was cancelled while it was on its way
    step.change(timers=step.state.timers - {event.timer})
    _TIMERS[event.timer](step)


def _hello_over(step: Step) -> None:
    step.change(hello_over=True)
    step.start_if_ready()


def _nobody_to_tell(step: Step) -> None:
    step.forget_telling()
    step.flush()


def _not_rejoined(step: Step) -> None:
    if step.state.phase is Phase.FAILING:
        _nobody_to_tell(step)
    else:
        step.end_cleanly(EndReason.CLIENT_DISCONNECTED)


def _idle(step: Step) -> None:
    if not step.state.has_idle_hook:
        step.end_idle()
        return
    step.change(phase=Phase.IDLE_HOOK)
    step.set_timer(Timer.IDLE_GRACE, step.rules.idle_grace_seconds)
    step.do(RunIdleHook())


def _idle_grace_over(step: Step) -> None:
    step.record(
        SessionErrorCode.IDLE_TIMEOUT_CALLBACK_TIMED_OUT,
        f"on_idle_timeout was not done after its {step.rules.idle_grace_seconds:g} s of grace",
        recoverable=True,
        tell=True,
    )
    step.end_idle()


def _crash_speech_overdue(step: Step) -> None:
    limit = step.rules.crash_speech_seconds
    _crash_message_failed(step, f"the crash message was not played within {limit:g} s")
    if step.state.phase is Phase.FAILING:
        step.flush()


def _drain_overdue(step: Step) -> None:
    step.do(StopSpeech())
    _speech_drained(step, SpeechDrained())


def _slot_free(step: Step) -> None:
    return  # its timer is gone, and that is all there is to it


def _ignore(step: Step, event: Event) -> None:
    return


_TIMERS: dict[Timer, Callable[[Step], None]] = {
    Timer.HELLO: _hello_over,
    Timer.TELL: _nobody_to_tell,
    Timer.ARRIVAL: _not_rejoined,
    Timer.REJOIN: _not_rejoined,
    Timer.IDLE: _idle,
    Timer.IDLE_GRACE: _idle_grace_over,
    Timer.DRAIN_SPEECH: _drain_overdue,
    Timer.END_HOOK: Step.flush,
    Timer.CRASH_SPEECH: _crash_speech_overdue,
    **dict.fromkeys(RESTART_SLOTS, _slot_free),
}

_EVENTS: dict[type[Event], Callable[[Step, Any], None]] = {
    AgentReady: _agent_ready,
    AgentStarted: _ignore,
    AgentEnded: _agent_ended,
    HandlerFailed: _handler_failed,
    PromptUnheard: _prompt_unheard,
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
    under_way = Step(state, rules)
    _EVENTS[type(event)](under_way, event)
    return under_way.state, tuple(under_way.effects)
