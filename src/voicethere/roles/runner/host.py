"""One session, hosted: carries out what the session's machine decides, and tells it what happened.

All decisions are in `voicethere.core.session`; here is only the doing. Everything that can go wrong on the
way back becomes an event, so that no failure of a part can end in silence.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import structlog

from voicethere.core.ports import SpeechProviderError
from voicethere.core.session import Event, Phase, SessionState, effects, events, step
from voicethere.core.session.early import fits
from voicethere.errors import Cause, ErrorRecord, Redactor, fit_envelope
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.runner.agent_events import AgentEvent, LogLine, Spoken
from voicethere.roles.runner.agent_speech import AgentSpeech, SpeechOutlet
from voicethere.roles.runner.chat_leg import ChatLeg, ChatLegEvents
from voicethere.roles.runner.chat_prompts import PROMPT_HOOK, ChatPrompts
from voicethere.roles.runner.client_leg import ClientLeg
from voicethere.roles.runner.client_messages import MessageRefused
from voicethere.roles.runner.client_requests import ClientRequests
from voicethere.roles.runner.closing import close_all
from voicethere.roles.runner.connections import ClientConnections, ConnectionEvents
from voicethere.roles.runner.listening import Listener
from voicethere.roles.runner.machine_events import machine_event
from voicethere.roles.runner.reporter import Reporter
from voicethere.roles.runner.runner_parts import RunnerParts
from voicethere.roles.runner.session_children import SessionChildren
from voicethere.roles.runner.session_rules import rules_of
from voicethere.roles.runner.speaking import Speaker, SpeakerEvents
from voicethere.roles.runner.timers import Timers
from voicethere.roles.runner.token_renewal import TokenRenewal
from voicethere.roles.runner.written_speech import AnnouncedSpeech, ChatSpeech
from voicethere.wire import ipc
from voicethere.wire.control_channel import (
    AgentSpeak,
    Chat,
    EndReason,
    SessionClose,
    SessionReconnectToken,
    SpeechEvent,
    SpeechEventType,
    runner_message_type,
)
from voicethere.wire.relay import AssignSession, RoomClosed, SignalToPeer, TokenIssued, TokenWanted
from voicethere.wire.tagged import encode_text

_UNHEARD = f"the agent cannot answer in a chat: it has no {PROMPT_HOOK} hook, which is given the prompts"

_log = structlog.get_logger(__name__)


class SessionHost:
    """`over` is set once the session's end is durable and nothing of it is left."""

    def __init__(self, assignment: AssignSession, parts: RunnerParts) -> None:
        agent = assignment.agent
        settings = parts.settings
        self.session_id = assignment.session_id
        self.over = asyncio.Event()
        self._assignment = assignment
        self._agent = agent
        self._parts = parts
        self._settings = settings
        self._redactor = Redactor(agent.secrets.values())
        self._rules = rules_of(assignment, settings)
        # Storing may take longer than a client's acknowledgement, and nobody stands there and waits.
        self._flush_seconds = settings.answer_seconds if assignment.chat else settings.flush_seconds
        self._state = SessionState(customer_context=assignment.customer_context)
        self._events: deque[Event] = deque()
        self._stepping = False
        self._records: dict[int, ErrorRecord] = {}
        self._commands: tuple[str, ...] = ()
        self._hooks: tuple[str, ...] = ()
        self._loaded = False
        self._children = SessionChildren(
            self.session_id,
            agent,
            parts,
            context=lambda: self._state.customer_context,
            on_event=self._agent_event,
            redact=self._redactor.text,
            spawn=self._spawn,
            failed=self.fault,
        )
        self._tokens = TokenRenewal(
            clock=parts.clock,
            share=settings.token_refresh_share,
            want=lambda: self._parts.send(TokenWanted(session_id=self.session_id)),
        )
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timers = Timers(lambda timer: self._post(events.TimerFired(timer=timer)))
        self._reporter = Reporter(
            session_id=self.session_id,
            agent=agent,
            queue=parts.queue,
            clock=parts.clock,
            redactor=self._redactor,
            bounds=settings.bounds,
            counts=parts.counts,
        )
        self._chat = self._new_chat() if assignment.chat else None
        self._prompts = None if self._chat is None else self._new_prompts(self._chat)
        self._connections: ClientLeg = self._chat or self._new_connections()
        self._speaker = Speaker(
            synthesizer=parts.speech.synthesizer,
            track=lambda: self._connections.track,
            events=SpeakerEvents(announce=self._announce, speech_event=self._speech_event),
        )
        self._speech = AgentSpeech(self._speech_outlet(), spoke=self._agent_spoke)
        self._listener: Listener | None = None
        self._looking_up: asyncio.Task[None] | None = None

    def _speech_outlet(self) -> SpeechOutlet:
        if self._chat is not None:
            return ChatSpeech(self._chat)
        return self._speaker if self._agent.mode.has_audio else AnnouncedSpeech(self._announce)

    def _new_connections(self) -> ClientConnections:
        requests = ClientRequests(
            session_id=self.session_id,
            agent=self._agent,
            settings=self._settings,
            post=self._post,
            refuse=self._send,
            speak=lambda text: self._speaker.say(text),
        )
        return self._parts.connect(
            session_id=self.session_id,
            room_id=self._assignment.room_id,
            audio=self._agent.mode.has_audio,
            ice_servers=self._assignment.ice_servers,
            settings=self._settings,
            signal=self._signal,
            events=ConnectionEvents(
                opened=self._opened,
                lost=self._lost,
                broken=self.fault,
                control=requests.control,
                sync=lambda data: requests.binary(data, "sync"),
                audio=self._hear,
                audio_problem=lambda problem: self._speech_event(SpeechEventType.ERROR, None, problem),
                ignored=self._parts.counts.signal_ignored,
            ),
        )

    def _new_chat(self) -> ChatLeg:
        return ChatLeg(
            session_id=self.session_id,
            lost_seconds=self._settings.answer_seconds,
            send=self._parts.send,
            events=ChatLegEvents(
                opened=lambda: self._post(events.ControlOpened()),
                lost=self._lost,
                broken=self.fault,
                prompt=self._prompted,
                remark=self._remark,
            ),
        )

    def _new_prompts(self, chat: ChatLeg) -> ChatPrompts:
        return ChatPrompts(
            send=self._children.send,
            phase=lambda: self._state.phase,
            heard=lambda: PROMPT_HOOK in self._hooks,
            unheard=lambda: self._post(events.PromptUnheard(problem=_UNHEARD)),
            taken=chat.prompt_taken,
        )

    # ------------------------------------------------------------------ from the runner

    def begin(self) -> None:
        """Start the agent's process, and have the crash message ready before it is needed."""
        self._children.start()
        if self._chat is not None:
            self._chat.open()
        if self._agent.mode.has_audio:
            self._begin_listening()
        if self._rules.has_audio and self._rules.crash_speech:
            self._spawn(self._prepare_crash_speech())

    def peer_joined(self, peer_id: str) -> None:
        """A peer joined the session's room."""
        self._connections.joined(peer_id)

    def peer_left(self, peer_id: str) -> None:
        """A peer's signaling socket is gone."""
        self._connections.left(peer_id)

    def signalled(self, peer_id: str, text: str) -> None:
        """A peer of the room sent signaling JSON."""
        self._connections.signalled(peer_id, text)

    def token_issued(self, message: TokenIssued) -> None:
        """A fresh join token for the client; the next is asked for well before it expires."""
        self._send(SessionReconnectToken(token=message.token, expires_at=message.expires_at))
        self._tokens.issued(message.expires_at)

    def chat_prompt(self, number: int, text: str) -> None:
        """A prompt for a chat session."""
        if self._chat is not None:
            self._chat.prompted(number, text)

    def chat_taken(self, number: int) -> None:
        """What a chat session said is stored, up to this output."""
        if self._chat is not None:
            self._chat.taken(number)

    def cancel(self) -> None:
        """The session service gave the session up."""
        self._post(events.Cancelled())

    def end(self, reason: EndReason) -> None:
        """End the session in order: its client is told the reason, and it is stored.

        A conversation is not told how its sessions end; an answer that is cut off is an error there.
        """
        answering = self._prompts is not None and self._prompts.answering
        speaking = self._chat is not None and self._chat.speaking
        self._post(events.EndOrdered(end_reason=reason, cut_off=answering or speaking))

    def fault(self, error: BaseException) -> None:
        """Something that was to be done for the session raised: that ends it, with an error."""
        self._post(events.RunnerFault(cause=error))

    # ------------------------------------------------------------------ the machine

    def _post(self, event: Event) -> None:
        """Tell the machine, and do what it wants. Events that come up meanwhile wait their turn."""
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events:
                was_open = self._state.phase.open
                self._state, todo = step(self._state, self._events.popleft(), self._rules)
                for effect in todo:
                    self._perform(effect)
                if was_open and not self._state.phase.open and self._listener is not None:
                    self._listener.end()
        finally:
            self._stepping = False

    def _perform(self, effect: effects.Effect) -> None:
        try:
            _PERFORM[type(effect)](self, effect)
        except Exception as error:
            _log.exception("effect_failed", session_id=self.session_id, effect=type(effect).__name__)
            self._events.append(events.RunnerFault(cause=error))

    # ------------------------------------------------------------------ effects

    def _start_session(self, effect: effects.StartSession) -> None:
        if self._prompts is not None:
            self._prompts.child_starts()
        self._children.session_start(effect.customer_context)

    def _to_agent(self, effect: effects.ToAgent) -> None:
        if self._prompts is not None and isinstance(effect.message, ipc.DataChannelMessage):
            self._prompts.add(effect.message)
        else:
            self._children.send(effect.message)

    def _refuse_input(self, effect: effects.RefuseInput) -> None:
        kind = type(effect.message).__name__
        _log.warning("message_dropped", session_id=self.session_id, kind=kind)
        if not isinstance(effect.message, ipc.SpeechEventMessage):
            self._send(MessageRefused(reason="the agent is not there yet, and too much waits for it already"))

    def _run_idle_hook(self, effect: effects.RunIdleHook) -> None:
        self._children.send(
            ipc.IdleTimeout(
                session_id=self.session_id,
                idle_timeout_seconds=int(self._rules.idle_seconds or 0),
                grace_seconds=self._rules.idle_grace_seconds,
            )
        )

    def _end_agent_session(self, effect: effects.EndAgentSession) -> None:
        self._children.session_end()

    def _record(self, effect: effects.Record) -> None:
        self._records[effect.number] = self._reporter.record(
            effect.cause,
            code=effect.code,
            recoverable=effect.recoverable,
            customer_context=self._state.customer_context,
        )

    def _tell(self, effect: effects.Tell) -> None:
        record = self._records[effect.number]
        envelope = record.envelope(with_stack=self._agent.settings.client_stack_traces)
        self._connections.tell(record.id, fit_envelope(envelope, self._envelope_limit()))

        async def heard() -> None:
            if await self._connections.flush(self._flush_seconds):
                self._post(events.Heard(number=effect.number))

        self._spawn(heard())

    def _envelope_limit(self) -> int:
        """What the settings allow, and never more than the client takes in one message."""
        limit = self._settings.bounds.envelope_bytes
        taken = self._connections.max_message_size
        return limit if taken is None else min(limit, taken)

    def _restart_agent(self, effect: effects.RestartAgent) -> None:
        self._children.start()

    def _speak_crash_message(self, effect: effects.SpeakCrashMessage) -> None:
        self._spawn(self._play_crash_message(last=effect.last))

    def _drain_speech(self, effect: effects.DrainSpeech) -> None:
        async def drain() -> None:
            await self._speech.drained()
            self._post(events.SpeechDrained())

        self._spawn(drain())

    def _stop_speech(self, effect: effects.StopSpeech) -> None:
        if self._state.phase.open:
            self._speech.interrupt()
        else:
            self._speech.close()
        self._speaker.stop()

    def _send_close(self, effect: effects.SendClose) -> None:
        code = msgspec.UNSET if effect.code is None else effect.code
        self._speech.close()
        self._connections.send_close(SessionClose(code=code, reason=effect.reason))

    def _flush(self, effect: effects.Flush) -> None:
        self._connections.closing(self._state.end_reason or EndReason.ERROR)

        async def flush() -> None:
            acknowledged = False
            try:
                acknowledged = await self._connections.flush(self._flush_seconds)
            finally:
                self._post(events.Flushed(acknowledged=acknowledged))

        self._spawn(flush())

    def _tear_down(self, effect: effects.TearDown) -> None:
        self._spawn(self._close_everything())

    def _await_records(self, effect: effects.AwaitRecords) -> None:
        async def wait() -> None:
            await self._reporter.durable()
            self._post(events.RecordsDurable())

        self._spawn(wait())

    def _queue_end(self, effect: effects.QueueEnd) -> None:
        async def end() -> None:
            await self._reporter.queue_end(end_reason=effect.end_reason, failed=effect.failed)
            # Only now: from here on the session service no longer answers for the session.
            self._parts.send(RoomClosed(session_id=self.session_id))
            self.over.set()

        self._spawn(end())

    # ------------------------------------------------------------------ what takes time

    async def _prepare_crash_speech(self) -> None:
        try:
            await self._parts.crash_speech.packets(self._agent.settings.error_message)
        except SpeechProviderError as error:
            # Tried again when it is needed; until then it is only worth a line.
            _log.warning("crash_speech_not_ready", session_id=self.session_id, problem=str(error))

    async def _play_crash_message(self, *, last: bool) -> None:
        text = self._agent.settings.error_message
        failure: Cause | None = None
        try:
            packets = await self._parts.crash_speech.packets(text)
            await self._speaker.play_now(text, packets, last=last)
        except Exception as error:
            failure = error
        self._post(events.CrashSpeechDone(last=last, failure=failure))

    def _begin_listening(self) -> None:
        speech = self._parts.speech
        try:
            self._listener = Listener(
                voice_activity=speech.new_voice_activity(),
                recognizer=speech.recognizer if self._agent.settings.stt_enabled else None,
                hints=lambda: self._commands,
                speech_event=self._speech_event,
                agent_speaks=lambda: self._speaker.interruptible,
                interrupt=self._speaker.stop,
            )
        except SpeechProviderError as error:
            self._post(events.RunnerFault(cause=error))

    async def _close_everything(self) -> None:
        """Close all parts at once, each bounded; what could not be closed is what failed."""
        self._timers.cancel_all()
        self._speech.close()
        self._tokens.stop()
        if self._looking_up is not None:
            self._looking_up.cancel()
        client = "the peer connection" if self._chat is None else "the conversation"
        parts: dict[str, Coroutine[Any, Any, None]] = {
            client: self._connections.aclose(),
            "the speech on its way": self._speaker.aclose(),
        }
        if self._listener is not None:
            parts["the recognition on its way"] = self._listener.aclose()
        parts["the agent's process"] = self._children.stop(self._settings.stop_agent_seconds)
        problems = await close_all(parts, self._settings.teardown_seconds)
        self._post(events.TornDown(failure="; ".join(problems) or None))

    # ------------------------------------------------------------------ from the agent

    def _agent_event(self, event: AgentEvent) -> None:
        match event:
            case ipc.Speak() | ipc.SpeakStart() | ipc.SpeakText() | ipc.SpeakEnd():
                self._speech.take(event, self._children.answer_to(event))
            case ipc.DisconnectClient(more=more):
                self._speech.hanging_up(more=more)
            case ipc.SendToClient(payload=payload):
                self._agent_sends(payload)
            case ipc.SendBinaryToClient(data=data, channel=channel):
                self._connections.send_binary(data, channel)
            case LogLine():
                # Not now: what the agent sent behind it, such as its failure, is handled first.
                asyncio.get_running_loop().call_soon(self._agent_log, event)
            case ipc.AgentLoaded(hooks=hooks, commands=commands):
                self._hooks, self._commands = tuple(hooks), tuple(commands)
                self._loaded = True
                if self._listener is not None and self._agent.settings.stt_enabled:
                    self._looking_up = self._spawn(self._look_up_commands())
        if self._prompts is not None:
            _tell_of_hooks(self._prompts, event)
        if (told := machine_event(event)) is not None:
            self._post(told)

    def _agent_log(self, line: LogLine) -> None:
        _log.info(
            "agent_log",
            session_id=self.session_id,
            level_of_agent=line.level,
            message=line.message,
            fields=line.fields,
        )

    async def _look_up_commands(self) -> None:
        words = await self._parts.command_words.remark(self._agent.build_id, self._commands)
        if words is not None:
            self._remark(self._redactor.text(words))

    def _remark(self, words: str) -> None:
        """A line of the platform's in the agent's log."""
        self._agent_log(LogLine(level="warn", message=words, time=self._now(), session_id=self.session_id))

    def _agent_sends(self, payload: str) -> None:
        """Pass it on, unless it would pass for a message of the platform's: clients act on those."""
        if (pretended := runner_message_type(payload)) is not None:
            _log.warning("agent_message_refused", session_id=self.session_id, pretended=pretended)
        else:
            self._connections.pass_on(payload)

    def _agent_spoke(self, spoken: Spoken) -> None:
        # Heard speech is activity where it begins and ends. Without audio the words themselves are; and
        # while a text is being written, so is every piece of it.
        if isinstance(spoken, ipc.SpeakText) or not self._agent.mode.has_audio:
            self._post(events.Activity(voice=True))

    # ------------------------------------------------------------------ from the client

    def _opened(self) -> None:
        self._post(events.ControlOpened())
        self._tokens.ask()

    def _prompted(self, text: str) -> bool:
        """A user's prompt; False where this session cannot take it (now), and the next one may."""
        message = ipc.DataChannelMessage(session_id=self.session_id, raw=encode_text(Chat(text=text)))
        if self._state.phase not in (Phase.OPENING, Phase.LIVE):
            return False
        waiting = () if self._prompts is None else self._prompts.waiting
        if not fits((*waiting, *self._state.early), message):
            return False
        self._post(events.ClientSent(message=message))
        return True

    def _lost(self) -> None:
        if self._listener is not None:
            self._listener.audio_over()
        self._post(events.PeerLost())

    def _hear(self, pcm: bytes) -> None:
        # Before the agent is loaded nobody knows what to expect; a session that ends listens to nobody.
        if self._listener is not None and self._loaded and self._state.phase.open:
            self._listener.hear(pcm)

    # ------------------------------------------------------------------ speech

    def _announce(self, text: str) -> None:
        self._send(AgentSpeak(text=text, ts=self._now()))

    def _speech_event(self, event: SpeechEventType, text: str | None, error: str | None) -> None:
        """To the client and, while it has its session, to the agent."""
        self._send(
            SpeechEvent(
                event=event,
                ts=self._now(),
                text=msgspec.UNSET if text is None else text,
                error=msgspec.UNSET if error is None else error,
            )
        )
        message = ipc.SpeechEventMessage(session_id=self.session_id, event=event, text=text, error=error)
        self._post(events.ClientSent(message=message))

    # ------------------------------------------------------------------ small things

    def _signal(self, peer_id: str, text: str) -> None:
        self._parts.send(SignalToPeer(session_id=self.session_id, peer_id=peer_id, message=text))

    def _send(self, message: msgspec.Struct) -> None:
        self._connections.notify(message)

    def _now(self) -> str:
        return iso_from_epoch(self._parts.clock.now())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # What the task logs, whoever logs it below, says which session it is about.
        with structlog.contextvars.bound_contextvars(session_id=self.session_id):
            task = asyncio.create_task(work, name=f"session {self.session_id}")
        self._tasks.add(task)
        task.add_done_callback(self._task_over)
        return task

    def _task_over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("session_task_failed", session_id=self.session_id, exc_info=error)
            self._post(events.RunnerFault(cause=error))


def _tell_of_hooks(prompts: ChatPrompts, event: AgentEvent) -> None:
    match event:
        case ipc.SessionStartAck():
            prompts.session_started()
        case ipc.HandlerStarted(hook=hook):
            prompts.hook_began(hook)
        case ipc.HandlerFinished(hook=hook):
            prompts.hook_over(hook)


_PERFORM: dict[type[effects.Effect], Callable[[SessionHost, Any], None]] = {
    effects.StartSession: SessionHost._start_session,
    effects.ToAgent: SessionHost._to_agent,
    effects.RefuseInput: SessionHost._refuse_input,
    effects.RunIdleHook: SessionHost._run_idle_hook,
    effects.EndAgentSession: SessionHost._end_agent_session,
    effects.Record: SessionHost._record,
    effects.Tell: SessionHost._tell,
    effects.RestartAgent: SessionHost._restart_agent,
    effects.SpeakCrashMessage: SessionHost._speak_crash_message,
    effects.DrainSpeech: SessionHost._drain_speech,
    effects.StopSpeech: SessionHost._stop_speech,
    effects.SendClose: SessionHost._send_close,
    effects.Flush: SessionHost._flush,
    effects.TearDown: SessionHost._tear_down,
    effects.AwaitRecords: SessionHost._await_records,
    effects.QueueEnd: SessionHost._queue_end,
    effects.SetTimer: lambda host, effect: host._timers.set(effect.timer, effect.seconds),
    effects.CancelTimer: lambda host, effect: host._timers.cancel(effect.timer),
}
