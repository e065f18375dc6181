"""The session's life: what must follow what, and that no order of events can break it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicethere.core.session import Event, Phase, Rules, SessionState, Timer, effects, events, step
from voicethere.errors.causes import Crash, CrashKind, HandlerFailure
from voicethere.errors.codes import SessionErrorCode
from voicethere.wire.control_channel import EndReason, SpeechEventType
from voicethere.wire.ipc import DataChannelMessage, SpeechEventMessage

VOICE = Rules(has_audio=True, crash_speech=True, idle_seconds=30.0)
DATA = Rules(has_audio=False, crash_speech=True, idle_seconds=30.0)

SPEAKING = (
    SpeechEventType.USER_SPEAKING_START,
    SpeechEventType.USER_SPEAKING_END,
    SpeechEventType.AGENT_SPEAKING_START,
    SpeechEventType.AGENT_SPEAKING_END,
)
FAILURE = HandlerFailure(hook="on_user_speech_final", message="RuntimeError: no", stack="…")
CRASH = Crash(kind=CrashKind.SIGNAL, signal=9)
LOAD_FAILURE = Crash(kind=CrashKind.LOAD_FAILURE, message="no")
MESSAGE = DataChannelMessage(session_id="s", raw="hello")


def speech(event: SpeechEventType) -> SpeechEventMessage:
    return SpeechEventMessage(session_id="s", event=event)


class Life:
    """A session being driven: the state, and everything that was wanted of the outside."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.state = SessionState()
        self.log: list[effects.Effect] = []
        self.timers: dict[Timer, float] = {}

    def tell(self, *happened: Event) -> list[effects.Effect]:
        fresh: list[effects.Effect] = []
        for event in happened:
            if isinstance(event, events.TimerFired):
                self.timers.pop(event.timer, None)
            self.state, todo = step(self.state, event, self.rules)
            fresh.extend(todo)
            for effect in todo:
                if isinstance(effect, effects.SetTimer):
                    self.timers[effect.timer] = effect.seconds
                elif isinstance(effect, effects.CancelTimer):
                    assert effect.timer in self.timers
                    del self.timers[effect.timer]
        self.log.extend(fresh)
        return fresh

    def all(self, kind: type[effects.Effect]) -> list[effects.Effect]:
        return [effect for effect in self.log if isinstance(effect, kind)]

    def kinds(self, fresh: Iterable[effects.Effect]) -> list[str]:
        skipped = (effects.SetTimer, effects.CancelTimer)
        return [type(effect).__name__ for effect in fresh if not isinstance(effect, skipped)]


def live(rules: Rules) -> Life:
    life = Life(rules)
    life.tell(events.AgentReady(), events.ControlOpened(), events.HelloReceived(customer_context={"a": 1}))
    assert life.state.phase is Phase.LIVE
    return life


class TestOpening:
    def test_session_start_waits_for_agent_channel_and_hello(self) -> None:
        life = Life(VOICE)
        assert life.kinds(life.tell(events.AgentReady())) == []
        assert life.kinds(life.tell(events.ControlOpened())) == []
        assert life.timers == {Timer.HELLO: 0.5}
        assert life.tell(events.HelloReceived(customer_context={"userId": "u"}))[1] == effects.StartSession(
            customer_context={"userId": "u"}
        )

    def test_session_start_waits_no_longer_than_the_hello_limit(self) -> None:
        life = Life(VOICE)
        life.tell(events.AgentReady(), events.ControlOpened())
        assert "StartSession" in life.kinds(life.tell(events.TimerFired(timer=Timer.HELLO)))

    def test_what_the_client_sends_early_comes_right_behind_session_start(self) -> None:
        life = Life(DATA)
        life.tell(events.ControlOpened(), events.ClientSent(message=MESSAGE))
        life.tell(events.HelloReceived(customer_context={}))
        assert life.kinds(life.tell(events.AgentReady())) == ["StartSession", "ToAgent"]

    def test_nobody_joins(self) -> None:
        life = Life(VOICE)
        life.tell(events.AgentReady())
        assert life.kinds(life.tell(events.Cancelled())) == ["Flush"]
        life.tell(events.Flushed(), events.TornDown(), events.RecordsDurable())
        assert life.all(effects.Record) == []
        assert life.log[-1] == effects.QueueEnd(end_reason=EndReason.CLIENT_DISCONNECTED, failed=False)

    def test_a_client_that_never_comes_is_not_waited_for_without_end(self) -> None:
        life = Life(VOICE)
        life.tell(events.AgentReady())
        assert life.timers == {Timer.ARRIVAL: 180.0}
        assert life.kinds(life.tell(events.TimerFired(timer=Timer.ARRIVAL))) == ["Flush"]
        life.tell(events.Flushed(), events.TornDown(), events.RecordsDurable())
        assert life.log[-1] == effects.QueueEnd(end_reason=EndReason.CLIENT_DISCONNECTED, failed=False)

    def test_a_client_that_came_once_is_waited_for_as_one_that_was_lost(self) -> None:
        life = Life(VOICE)
        life.tell(events.AgentReady(), events.ControlOpened())
        assert Timer.ARRIVAL not in life.timers
        life.tell(events.PeerLost())
        assert life.timers[Timer.REJOIN] == 30.0
        assert Timer.ARRIVAL not in life.timers

    def test_nobody_waits_for_a_client_that_was_there_before_the_agent(self) -> None:
        life = Life(VOICE)
        life.tell(events.ControlOpened(), events.AgentReady())
        assert Timer.ARRIVAL not in life.timers


class TestFailing:
    def test_a_handler_that_raises_with_audio(self) -> None:
        life = live(VOICE)
        fresh = life.tell(events.HandlerFailed(failure=FAILURE))
        assert life.kinds(fresh) == ["StopSpeech", "Record", "Tell", "SpeakCrashMessage"]
        assert life.all(effects.Record)[0] == effects.Record(
            number=0, code=SessionErrorCode.AGENT_HANDLER_FAILED, cause=FAILURE, recoverable=False
        )
        assert life.kinds(life.tell(events.CrashSpeechDone())) == ["Flush"]
        assert life.kinds(life.tell(events.Flushed())) == ["TearDown"]
        assert life.kinds(life.tell(events.TornDown())) == ["AwaitRecords"]
        assert life.tell(events.RecordsDurable()) == [
            effects.QueueEnd(end_reason=EndReason.AGENT_ERROR, failed=True)
        ]
        assert life.timers == {}

    def test_a_crash_in_data_mode_is_told_and_not_spoken(self) -> None:
        life = live(DATA)
        fresh = life.tell(events.AgentGone(crash=CRASH))
        assert life.kinds(fresh) == ["StopSpeech", "Record", "Tell", "Flush"]

    def test_an_empty_crash_message_is_not_spoken(self) -> None:
        life = live(Rules(has_audio=True, crash_speech=False, idle_seconds=None))
        assert "SpeakCrashMessage" not in life.kinds(life.tell(events.HandlerFailed(failure=FAILURE)))

    def test_the_first_error_wins_and_nothing_is_reported_twice(self) -> None:
        life = live(VOICE)
        life.tell(events.HandlerFailed(failure=FAILURE), events.AgentGone(crash=CRASH))
        life.tell(events.RunnerFault(cause="x"), events.HandlerFailed(failure=FAILURE))
        assert len(life.all(effects.Record)) == 1

    def test_an_agent_that_dies_before_its_client_arrives_is_told_of_on_arrival(self) -> None:
        life = Life(VOICE)
        assert life.kinds(life.tell(events.AgentGone(crash=CRASH))) == ["StopSpeech", "Record"]
        assert life.timers == {Timer.TELL: 120.0}
        assert life.kinds(life.tell(events.ControlOpened())) == ["Tell", "SpeakCrashMessage"]

    def test_nobody_arrives_to_be_told(self) -> None:
        life = Life(VOICE)
        life.tell(events.AgentGone(crash=CRASH), events.TimerFired(timer=Timer.TELL))
        life.tell(events.Flushed(), events.TornDown(), events.RecordsDurable())
        assert life.log[-1] == effects.QueueEnd(end_reason=EndReason.AGENT_ERROR, failed=True)

    def test_crash_speech_that_fails_is_recorded_and_not_told(self) -> None:
        life = live(VOICE)
        life.tell(events.HandlerFailed(failure=FAILURE), events.CrashSpeechDone(failure="no sound"))
        codes = [record.code for record in life.all(effects.Record)]  # type: ignore[attr-defined]
        assert codes == [SessionErrorCode.AGENT_HANDLER_FAILED, SessionErrorCode.RUNNER_INTERNAL]
        assert [tell.number for tell in life.all(effects.Tell)] == [0]  # type: ignore[attr-defined]

    def test_teardown_that_fails_is_recorded_and_not_told(self) -> None:
        life = live(DATA)
        life.tell(
            events.ClientClosed(), events.AgentEnded(), events.Flushed(), events.TornDown(failure="stuck")
        )
        life.tell(events.RecordsDurable())
        assert life.all(effects.Record)[0].code is SessionErrorCode.SESSION_END_FAILED  # type: ignore[attr-defined]
        assert life.all(effects.Tell) == []
        assert life.log[-1] == effects.QueueEnd(end_reason=EndReason.CLIENT_CLOSE_SIGNAL, failed=True)


class TestEndingCleanly:
    def test_the_client_closes(self) -> None:
        life = live(VOICE)
        assert life.kinds(life.tell(events.ClientClosed())) == ["StopSpeech", "EndAgentSession"]
        assert life.kinds(life.tell(events.AgentEnded())) == ["Flush"]
        life.tell(events.Flushed(), events.TornDown(), events.RecordsDurable())
        assert life.log[-1] == effects.QueueEnd(end_reason=EndReason.CLIENT_CLOSE_SIGNAL, failed=False)
        assert life.all(effects.Record) == []

    def test_the_agent_disconnects_after_its_last_words(self) -> None:
        life = live(VOICE)
        assert life.kinds(life.tell(events.AgentDisconnects())) == ["DrainSpeech"]
        fresh = life.tell(events.SpeechDrained())
        assert life.kinds(fresh) == ["SendClose", "EndAgentSession"]
        assert effects.SendClose(reason="agent_disconnected") in fresh

    def test_a_lost_peer_may_come_back(self) -> None:
        life = live(VOICE)
        life.tell(events.PeerLost())
        assert life.timers[Timer.REJOIN] == 30.0
        life.tell(events.ControlOpened())
        assert Timer.REJOIN not in life.timers
        assert life.state.phase is Phase.LIVE

    def test_a_lost_peer_that_stays_away(self) -> None:
        life = live(VOICE)
        life.tell(events.PeerLost(), events.TimerFired(timer=Timer.REJOIN), events.AgentEnded())
        life.tell(events.Flushed(), events.TornDown(), events.RecordsDurable())
        assert life.log[-1] == effects.QueueEnd(end_reason=EndReason.CLIENT_DISCONNECTED, failed=False)


class TestIdle:
    def test_without_a_hook(self) -> None:
        life = live(VOICE)
        fresh = life.tell(events.TimerFired(timer=Timer.IDLE))
        assert life.kinds(fresh) == ["Record", "Tell", "SendClose", "EndAgentSession"]
        assert effects.SendClose(code="idle_timeout", reason="idle_timeout") in fresh

    @pytest.mark.parametrize(
        ("outcome", "code"),
        [
            (events.IdleHookDone(failure=FAILURE), SessionErrorCode.IDLE_TIMEOUT_CALLBACK_FAILED),
            (events.TimerFired(timer=Timer.IDLE_GRACE), SessionErrorCode.IDLE_TIMEOUT_CALLBACK_TIMED_OUT),
        ],
    )
    def test_a_hook_that_fails_comes_before_the_idle_end(
        self, outcome: Event, code: SessionErrorCode
    ) -> None:
        life = Life(DATA)
        life.tell(events.AgentReady(has_idle_hook=True), events.ControlOpened())
        life.tell(events.HelloReceived(customer_context={}))
        assert life.kinds(life.tell(events.TimerFired(timer=Timer.IDLE))) == ["RunIdleHook"]
        life.tell(outcome)
        told = [(record.code, record.recoverable) for record in life.all(effects.Record)]  # type: ignore[attr-defined]
        assert told == [(code, True), (SessionErrorCode.SESSION_IDLE_TIMEOUT, False)]
        assert len(life.all(effects.Tell)) == 2

    @pytest.mark.parametrize(("voice", "setting"), [(True, "idle_on_voice"), (False, "idle_on_messages")])
    def test_only_what_the_settings_count_keeps_a_session_awake(self, voice: bool, setting: str) -> None:
        for counts in (True, False):
            rules = Rules(has_audio=True, crash_speech=True, idle_seconds=30.0, **{setting: counts})
            life = live(rules)
            restarted = [
                e for e in life.tell(events.Activity(voice=voice)) if isinstance(e, effects.SetTimer)
            ]
            assert bool(restarted) is counts


class TestRestarting:
    """`restart_child`: the crash is told and recorded, and the session goes on."""

    VOICE = Rules(has_audio=True, crash_speech=True, restart_child=True, idle_seconds=30.0)
    DATA = Rules(has_audio=False, crash_speech=True, restart_child=True, idle_seconds=30.0)

    def test_the_caller_is_told_and_hears_why_and_the_session_goes_on(self) -> None:
        life = live(self.VOICE)
        fresh = life.tell(events.AgentGone(crash=CRASH))
        assert life.kinds(fresh) == ["StopSpeech", "Record", "Tell", "RestartAgent", "SpeakCrashMessage"]
        assert life.all(effects.Record) == [
            effects.Record(number=0, code=SessionErrorCode.AGENT_CHILD_CRASHED, cause=CRASH, recoverable=True)
        ]
        assert effects.SpeakCrashMessage(last=False) in fresh
        life.tell(events.CrashSpeechDone(last=False))
        assert life.state.phase is Phase.LIVE
        assert set(life.timers) == {Timer.RESTART_1, Timer.IDLE}

    def test_the_new_child_gets_its_session_and_what_came_meanwhile(self) -> None:
        life = live(self.DATA)
        life.tell(events.AgentGone(crash=CRASH))
        assert life.kinds(life.tell(events.ClientSent(message=MESSAGE))) == []
        fresh = life.tell(events.AgentReady())
        assert life.kinds(fresh) == ["StartSession", "ToAgent"]
        assert fresh[0] == effects.StartSession(customer_context={"a": 1})
        assert life.kinds(life.tell(events.ClientSent(message=MESSAGE))) == ["ToAgent"]

    def test_a_client_that_is_away_is_told_when_it_is_back(self) -> None:
        life = live(self.VOICE)
        life.tell(events.PeerLost())
        assert life.kinds(life.tell(events.AgentGone(crash=CRASH))) == [
            "StopSpeech",
            "Record",
            "RestartAgent",
        ]
        assert life.kinds(life.tell(events.AgentReady())) == ["StartSession"]
        assert life.kinds(life.tell(events.ControlOpened())) == ["Tell"]

    def test_an_agent_that_crashes_before_its_client_is_there_starts_again(self) -> None:
        life = Life(self.VOICE)
        life.tell(events.AgentReady())
        assert life.kinds(life.tell(events.AgentGone(crash=CRASH))) == [
            "StopSpeech",
            "Record",
            "RestartAgent",
        ]
        assert life.kinds(life.tell(events.ControlOpened())) == ["Tell"]
        life.tell(events.HelloReceived(customer_context={}))
        assert life.kinds(life.tell(events.AgentReady())) == ["StartSession"]

    def test_the_fourth_crash_within_the_window_ends_the_session(self) -> None:
        life = live(self.DATA)
        for _ in range(3):
            life.tell(events.AgentGone(crash=CRASH), events.AgentReady())
        assert life.state.phase is Phase.LIVE
        life.tell(events.AgentGone(crash=CRASH))
        told = [record.recoverable for record in life.all(effects.Record)]  # type: ignore[attr-defined]
        assert told == [True, True, True, False]
        assert len(life.all(effects.Tell)) == 4
        assert life.state.phase is Phase.FLUSHING
        assert life.timers == {}

    def test_a_minute_later_it_may_crash_again(self) -> None:
        life = live(self.DATA)
        for _ in range(3):
            life.tell(events.AgentGone(crash=CRASH), events.AgentReady())
        life.tell(events.TimerFired(timer=Timer.RESTART_2))
        life.tell(events.AgentGone(crash=CRASH))
        assert len(life.all(effects.RestartAgent)) == 4
        assert set(life.timers) == {Timer.RESTART_1, Timer.RESTART_2, Timer.RESTART_3, Timer.IDLE}

    def test_a_bundle_that_cannot_be_loaded_is_not_tried_again(self) -> None:
        life = Life(self.VOICE)
        life.tell(events.ControlOpened(), events.AgentGone(crash=LOAD_FAILURE))
        assert life.all(effects.RestartAgent) == []
        assert life.state.phase is Phase.FAILING

    def test_a_handler_that_raises_ends_the_session_all_the_same(self) -> None:
        life = live(self.VOICE)
        life.tell(events.HandlerFailed(failure=FAILURE))
        assert life.state.phase is Phase.FAILING

    def test_an_agent_that_dies_in_its_idle_hook_is_not_started_for_the_end(self) -> None:
        life = Life(self.DATA)
        life.tell(events.AgentReady(has_idle_hook=True), events.ControlOpened())
        life.tell(events.TimerFired(timer=Timer.HELLO), events.TimerFired(timer=Timer.IDLE))
        assert life.state.phase is Phase.IDLE_HOOK
        life.tell(events.AgentGone(crash=CRASH))
        assert life.all(effects.RestartAgent) == []

    def test_the_idle_end_does_not_wait_for_an_agent_that_is_not_there(self) -> None:
        life = live(self.DATA)
        life.tell(events.AgentGone(crash=CRASH))
        fresh = life.tell(events.TimerFired(timer=Timer.IDLE))
        assert life.kinds(fresh) == ["Record", "Tell", "SendClose", "Flush"]

    def test_a_crash_message_that_fails_is_told_and_the_session_goes_on(self) -> None:
        life = live(self.VOICE)
        life.tell(events.AgentGone(crash=CRASH))
        assert life.kinds(life.tell(events.CrashSpeechDone(last=False, failure="no sound"))) == [
            "Record",
            "Tell",
        ]
        assert life.all(effects.Record)[1] == effects.Record(
            number=1, code=SessionErrorCode.RUNNER_INTERNAL, cause="no sound", recoverable=True
        )
        assert life.state.phase is Phase.LIVE

    def test_the_crash_message_is_not_begun_again_while_it_is_being_said(self) -> None:
        life = live(self.VOICE)
        life.tell(events.AgentGone(crash=CRASH), events.AgentReady(), events.AgentGone(crash=CRASH))
        assert len(life.all(effects.SpeakCrashMessage)) == 1

    def test_an_end_cuts_the_message_before_and_does_not_take_it_for_its_own(self) -> None:
        life = live(self.VOICE)
        life.tell(events.AgentGone(crash=CRASH), events.AgentReady())
        life.tell(events.HandlerFailed(failure=FAILURE))
        assert life.kinds(life.tell(events.CrashSpeechDone(last=False, failure="cut off"))) == []
        assert life.kinds(life.tell(events.CrashSpeechDone())) == ["Flush"]
        assert len(life.all(effects.Record)) == 2


class TestIdleAndSpeech:
    """The countdown stands still while somebody speaks, where speech counts."""

    @pytest.mark.parametrize("who", ["user", "agent"])
    def test_it_stands_still_from_the_start_to_the_end_of_speech(self, who: str) -> None:
        life = live(VOICE)
        life.tell(events.ClientSent(message=speech(SpeechEventType(f"{who}_speaking_start"))))
        assert Timer.IDLE not in life.timers
        life.tell(events.Activity(voice=False), events.ClientSent(message=MESSAGE))
        assert Timer.IDLE not in life.timers
        life.tell(events.ClientSent(message=speech(SpeechEventType(f"{who}_speaking_end"))))
        assert life.timers[Timer.IDLE] == 30.0

    def test_it_waits_for_whoever_speaks_last(self) -> None:
        life = live(VOICE)
        for event in ("agent_speaking_start", "user_speaking_start", "agent_speaking_end"):
            life.tell(events.ClientSent(message=speech(SpeechEventType(event))))
        assert Timer.IDLE not in life.timers
        life.tell(events.ClientSent(message=speech(SpeechEventType.USER_SPEAKING_END)))
        assert Timer.IDLE in life.timers

    @pytest.mark.parametrize("event", sorted(set(SpeechEventType) - set(SPEAKING)))
    def test_what_is_made_of_speech_is_no_activity(self, event: SpeechEventType) -> None:
        fresh = live(VOICE).tell(events.ClientSent(message=speech(event)))
        assert [type(effect) for effect in fresh] == [effects.ToAgent]

    def test_where_speech_does_not_count_it_runs_on(self) -> None:
        life = live(Rules(has_audio=True, crash_speech=True, idle_seconds=30.0, idle_on_voice=False))
        fresh = life.tell(events.ClientSent(message=speech(SpeechEventType.AGENT_SPEAKING_START)))
        assert [type(effect) for effect in fresh] == [effects.ToAgent]
        assert Timer.IDLE in life.timers


ANY_EVENT = st.sampled_from(
    [
        events.AgentReady(),
        events.AgentReady(has_idle_hook=True),
        events.AgentStarted(),
        events.AgentEnded(),
        events.HandlerFailed(failure=FAILURE),
        events.AgentGone(crash=CRASH),
        events.AgentGone(crash=LOAD_FAILURE),
        events.ControlOpened(),
        events.HelloReceived(customer_context={"n": 1}),
        events.ClientSent(message=MESSAGE),
        *(events.ClientSent(message=speech(event)) for event in SpeechEventType),
        events.Activity(voice=True),
        events.Activity(voice=False),
        events.ClientClosed(),
        events.AgentDisconnects(),
        events.PeerLost(),
        events.IdleHookDone(),
        events.IdleHookDone(failure=FAILURE),
        events.RunnerFault(cause="broken"),
        events.Cancelled(),
        events.EndOrdered(end_reason=EndReason.RUNNER_SHUTDOWN),
        events.SpeechDrained(),
        events.CrashSpeechDone(),
        events.CrashSpeechDone(failure="no sound"),
        events.CrashSpeechDone(last=False),
        events.CrashSpeechDone(last=False, failure="no sound"),
        events.Flushed(),
        events.Flushed(acknowledged=False),
        events.Heard(number=0),
        events.Heard(number=1),
        events.TornDown(),
        events.TornDown(failure="stuck"),
        events.RecordsDurable(),
        *(events.TimerFired(timer=timer) for timer in Timer),
    ]
)
RULES = st.builds(
    Rules,
    has_audio=st.booleans(),
    crash_speech=st.booleans(),
    restart_child=st.booleans(),
    idle_seconds=st.sampled_from([None, 30.0]),
    idle_on_voice=st.booleans(),
    idle_on_messages=st.booleans(),
)


def finish(life: Life) -> None:
    """Let the outside do what is still wanted of it, and let time pass, until the session is over."""
    answers = {
        Phase.FLUSHING: events.Flushed(),
        Phase.TEARING_DOWN: events.TornDown(),
        Phase.STORING: events.RecordsDurable(),
    }
    for _ in range(30):
        if life.state.phase is Phase.ENDED:
            return
        if life.state.phase in answers:
            life.tell(answers[life.state.phase])
        elif life.timers:
            life.tell(events.TimerFired(timer=min(life.timers, key=lambda timer: life.timers[timer])))
        else:
            # Open and waiting for its peer: what bounds that is the session service.
            life.tell(events.Cancelled())
    pytest.fail(f"stuck in {life.state.phase} with timers {life.timers}")


@settings(max_examples=600, deadline=None)
@given(rules=RULES, happened=st.lists(ANY_EVENT, max_size=30))
def test_any_order_of_events_ends_once_and_leaves_nothing(rules: Rules, happened: list[Event]) -> None:
    life = Life(rules)
    phases = [life.state.phase]
    slots_back = 0
    for event in happened:
        if isinstance(event, events.TimerFired) and event.timer.startswith("restart"):
            slots_back += event.timer in life.timers
        life.tell(event)
        assert set(life.timers) == set(life.state.timers)
        phases.append(life.state.phase)
    finish(life)

    assert life.timers == {}
    assert len(life.all(effects.QueueEnd)) == 1
    assert isinstance(life.log[-1], effects.QueueEnd)
    assert len(life.all(effects.TearDown)) == 1

    # One that was not acknowledged is told again on the next connection: clients drop what they know.
    told = list(dict.fromkeys(tell.number for tell in life.all(effects.Tell)))  # type: ignore[attr-defined]
    records = {record.number: record for record in life.all(effects.Record)}  # type: ignore[attr-defined]
    ending = [number for number in told if not records[number].recoverable]
    assert len(ending) <= 1
    assert not ending or told[-1] == ending[0], "nothing is told after the ending error"

    restarts = len(life.all(effects.RestartAgent))
    assert restarts <= 3 + slots_back
    assert not restarts or rules.restart_child
    crashed = [r for r in records.values() if r.code is SessionErrorCode.AGENT_CHILD_CRASHED]
    assert sum(record.recoverable for record in crashed) == restarts
    assert len(life.all(effects.StartSession)) <= 1 + restarts

    end = life.log[-1]
    assert isinstance(end, effects.QueueEnd)
    unexpected = [r for r in records.values() if r.code is not SessionErrorCode.SESSION_IDLE_TIMEOUT]
    if end.failed:
        assert unexpected
    order = list(Phase)
    back = [(a, b) for a, b in itertools.pairwise(phases) if order.index(b) < order.index(a)]
    assert back in ([], [(Phase.FLUSHING, Phase.FAILING)]), "once, for an ending error that nobody has heard"
    if back:
        where = [*itertools.pairwise(phases)].index(back[0])
        phases = phases[where + 1 :]
    assert [order.index(phase) for phase in phases] == sorted(order.index(phase) for phase in phases)


class TestErrorsThatWentIntoADeadConnection:
    """Until a loss is noticed, errors go into a connection that carries them nowhere."""

    def test_the_ending_error_is_told_again_when_the_client_is_back(self) -> None:
        life = live(VOICE)
        assert life.kinds(life.tell(events.HandlerFailed(failure=FAILURE))) == [
            "StopSpeech",
            "Record",
            "Tell",
            "SpeakCrashMessage",
        ]
        assert life.kinds(life.tell(events.PeerLost())) == []
        assert life.timers == {Timer.REJOIN: 30.0}
        assert life.kinds(life.tell(events.ControlOpened())) == ["Tell", "SpeakCrashMessage"]
        life.tell(events.Heard(number=0), events.CrashSpeechDone())
        assert life.kinds(life.tell(events.Flushed())) == ["TearDown"]

    def test_once_it_was_heard_nobody_is_waited_for(self) -> None:
        life = live(VOICE)
        life.tell(events.HandlerFailed(failure=FAILURE), events.Heard(number=0))
        assert life.kinds(life.tell(events.PeerLost())) == ["Flush"]
        assert life.kinds(life.tell(events.Flushed(acknowledged=False))) == ["TearDown"]

    def test_a_flush_that_nobody_acknowledges_waits_for_a_return_once(self) -> None:
        life = live(DATA)
        assert life.kinds(life.tell(events.HandlerFailed(failure=FAILURE)))[-1] == "Flush"
        assert life.kinds(life.tell(events.Flushed(acknowledged=False))) == []
        assert life.timers == {Timer.REJOIN: 30.0}
        assert life.kinds(life.tell(events.ControlOpened())) == ["Tell", "Flush"]
        assert life.kinds(life.tell(events.Flushed(acknowledged=False))) == ["TearDown"]

    def test_a_client_that_does_not_come_back_ends_the_wait(self) -> None:
        life = live(DATA)
        life.tell(events.HandlerFailed(failure=FAILURE), events.Flushed(acknowledged=False))
        assert life.kinds(life.tell(events.TimerFired(timer=Timer.REJOIN))) == ["Flush"]
        assert life.kinds(life.tell(events.Flushed(acknowledged=False))) == ["TearDown"]

    def test_a_connection_that_is_replaced_while_it_flushes(self) -> None:
        life = live(DATA)
        life.tell(events.HandlerFailed(failure=FAILURE))
        assert life.kinds(life.tell(events.ControlOpened())) == ["Tell", "Flush"]

    def test_the_crash_message_that_is_being_said_goes_on_when_the_connection_is_replaced(self) -> None:
        life = live(VOICE)
        life.tell(events.HandlerFailed(failure=FAILURE))
        assert life.kinds(life.tell(events.ControlOpened())) == ["Tell"]

    def test_a_runner_that_leaves_waits_for_nobody(self) -> None:
        life = live(DATA)
        life.tell(events.HandlerFailed(failure=FAILURE), events.Flushed(acknowledged=False))
        assert life.kinds(life.tell(events.EndOrdered(end_reason=EndReason.RUNNER_SHUTDOWN))) == ["Flush"]
        assert life.kinds(life.tell(events.Flushed(acknowledged=False))) == ["TearDown"]


def test_an_agent_that_fails_while_its_session_ends_holds_nobody_up() -> None:
    life = live(VOICE)
    life.tell(events.ClientClosed(), events.PeerLost())
    assert life.kinds(life.tell(events.HandlerFailed(failure=FAILURE))) == ["Record", "Flush"]
    life.tell(events.Flushed(), events.TornDown(), events.RecordsDurable())
    assert life.log[-1] == effects.QueueEnd(end_reason=EndReason.AGENT_ERROR, failed=True)


@pytest.mark.parametrize("reason", [EndReason.RUNNER_SHUTDOWN, EndReason.AGENT_DISCONNECTED])
def test_an_end_that_the_platform_orders_is_told_and_stored_with_its_reason_and_is_no_error(
    reason: EndReason,
) -> None:
    life = live(VOICE)
    ordered = life.tell(events.EndOrdered(end_reason=reason))
    assert [effect.reason for effect in ordered if isinstance(effect, effects.SendClose)] == [reason.value]
    life.tell(events.AgentEnded(), events.Flushed(), events.TornDown())
    (end,) = life.tell(events.RecordsDurable())
    assert end == effects.QueueEnd(end_reason=reason, failed=False)


def test_an_answer_that_the_platforms_end_cuts_off_is_an_error_where_nothing_else_tells_of_it() -> None:
    life = live(DATA)
    ordered = life.tell(events.EndOrdered(end_reason=EndReason.RUNNER_SHUTDOWN, cut_off=True))
    (record,) = [effect for effect in ordered if isinstance(effect, effects.Record)]
    assert (record.code, record.recoverable) == (SessionErrorCode.RUNNER_INTERNAL, True)
    assert record.cause == "the platform ended the session (runner_shutdown) while its agent was answering"
    assert [kind for kind in life.kinds(ordered) if kind in ("Record", "Tell", "SendClose")] == [
        "Record",
        "Tell",
        "SendClose",
    ]
    life.tell(events.AgentEnded(), events.Flushed(), events.TornDown())
    (end,) = life.tell(events.RecordsDurable())
    assert end == effects.QueueEnd(end_reason=EndReason.RUNNER_SHUTDOWN, failed=False)
