"""What comes from an agent child, checked: the child is hostile, or may be.

Passes on what the host may see, tells the watchdog and the journal the rest. Knows which sessions the child
was given and what it was asked; what answers nothing, is of another session, too big or too much is dropped,
with a line in the agent's log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from voicethere.core.ports import Clock
from voicethere.roles.runner.agent_events import AgentError, AgentEvent
from voicethere.roles.runner.agent_journal import Journal
from voicethere.roles.runner.agent_rate import MessageGate
from voicethere.roles.runner.agent_watchdog import Watchdog
from voicethere.wire import ipc

_json = msgspec.json.Decoder()
_MAX_NAME_CHARS = 64
_MAX_REASON_CHARS = 1000
_PIECE_OF_STREAM = 0.25
"""As what part of a message a piece of a stream counts: the SDK sends fifty a second, of each session."""


class _Stream:
    """The speech that a session's agent is writing, and how much of it came."""

    __slots__ = ("chars", "cut_off", "speech_id")

    def __init__(self, speech_id: int) -> None:
        self.speech_id = speech_id
        self.chars = 0
        self.cut_off = False


class _SessionInChild:
    """What was asked of the child for one session, and the stream that it has open there."""

    __slots__ = ("ending", "failed", "idle_asked", "start_acknowledged", "stream")

    def __init__(self) -> None:
        self.stream: _Stream | None = None
        self.start_acknowledged = False
        self.idle_asked = False
        self.failed = False
        self.ending = False


class Inbox:
    """`take` handles one message; `dropped` counts those that came to nothing.

    `ponged` is set by every answer to a ping, and at the end.
    """

    def __init__(
        self, *, emit: Callable[[AgentEvent], None], journal: Journal, watchdog: Watchdog, clock: Clock
    ) -> None:
        self._emit = emit
        self._journal = journal
        self._watchdog = watchdog
        self._clock = clock
        self._gate = MessageGate(clock.monotonic())
        self._sessions: dict[str, _SessionInChild] = {}
        self._failed_everywhere = False
        self.loaded = False
        self.dropped = 0
        self.ponged = asyncio.Event()
        self.all_ended = asyncio.Event()
        self.all_ended.set()

    @property
    def sessions(self) -> tuple[str, ...]:
        """The sessions that the child has."""
        return tuple(self._sessions)

    def session_given(self, session_id: str) -> None:
        """From now on messages of this session are the child's to send."""
        self._sessions[session_id] = _SessionInChild()
        self.all_ended.clear()

    def idle_asked(self, session_id: str) -> None:
        """An `idle_timeout_done` is due."""
        if session_id in self._sessions:
            self._sessions[session_id].idle_asked = True

    def ending(self, session_id: str) -> bool:
        """Whether the session is there and was not asked to end before."""
        session = self._sessions.get(session_id)
        if session is None or session.ending:
            return False
        session.ending = True
        return True

    def take(self, message: ipc.FromChild) -> None:
        """Handle one message."""
        match message:
            case ipc.Pong(n=n):
                self._watchdog.pong(n)
                self.ponged.set()
            case ipc.Log():
                known = message.session_id if message.session_id in self._sessions else None
                self._journal.logged(message, known)
            case ipc.AgentLoaded():
                self._loaded(message)
            case ipc.AgentError():
                self._failed(message)
            case ipc.AgentLoadFailed():
                self._drop("agent_load_failed after the agent was loaded")
            case _:
                session = self._sessions.get(message.session_id)
                if session is None:
                    kind = type(message).__name__
                    self._drop(
                        f"{kind} for session {message.session_id[:_MAX_NAME_CHARS]!r}, not this agent's"
                    )
                else:
                    self._of_session(message, session)

    def close(self) -> None:
        """Say what was refused last; nothing is taken any more."""
        self.ponged.set()
        self._tell_refused(self._gate.refused_to_tell(now=self._clock.monotonic(), last=True))

    def _of_session(
        self,
        message: ipc.SessionStartAck
        | ipc.SessionEndAck
        | ipc.IdleTimeoutDone
        | ipc.HandlerStarted
        | ipc.HandlerFinished
        | ipc.Speak
        | ipc.SpeakStart
        | ipc.SpeakText
        | ipc.SpeakEnd
        | ipc.SendToClient
        | ipc.SendBinaryToClient
        | ipc.DisconnectClient,
        session: _SessionInChild,
    ) -> None:
        match message:
            case ipc.HandlerStarted(session_id=session_id, hook=hook):
                self._watchdog.hook_began(session_id, hook[:_MAX_NAME_CHARS])
                self._emit(message)
            case ipc.HandlerFinished(session_id=session_id):
                self._watchdog.hook_over(session_id)
                self._emit(message)
            case ipc.SessionStartAck(session_id=session_id):
                if session.start_acknowledged:
                    self._drop("a second session_start_ack")
                    return
                session.start_acknowledged = True
                self._watchdog.session_started(session_id)
                self._emit(message)
            case ipc.IdleTimeoutDone():
                if not session.idle_asked:
                    self._drop("an idle_timeout_done that was not asked for")
                    return
                session.idle_asked = False
                self._emit(message)
            case ipc.SessionEndAck(session_id=session_id):
                if not session.ending:
                    self._drop("a session_end_ack that was not asked for")
                    return
                del self._sessions[session_id]
                self._watchdog.session_ended(session_id)
                self._emit(message)
                if not self._sessions:
                    self.all_ended.set()
            case ipc.Speak(text=text):
                if len(text) > ipc.MAX_SPEAK_CHARS:
                    self._drop(f"speech of {len(text)} characters; at most {ipc.MAX_SPEAK_CHARS} are spoken")
                elif self._may_pass(len(text)):
                    self._emit(message)
            case ipc.SpeakStart() | ipc.SpeakText() | ipc.SpeakEnd():
                self._of_stream(message, session)
            case ipc.SendToClient(payload=payload):
                size = len(payload.encode())
                if size > ipc.MAX_CLIENT_MESSAGE_BYTES:
                    self._drop(f"a message of {size} bytes; at most {ipc.MAX_CLIENT_MESSAGE_BYTES} are sent")
                elif not _is_json(payload):
                    self._drop("a message to the client that is not JSON")
                elif self._may_pass(size):
                    self._emit(message)
            case ipc.SendBinaryToClient(data=data, channel=channel):
                if len(data) > ipc.MAX_CLIENT_MESSAGE_BYTES:
                    self._drop(f"{len(data)} bytes of data; at most {ipc.MAX_CLIENT_MESSAGE_BYTES} are sent")
                elif channel not in ("sync", "control"):
                    self._drop(f"data for the channel {channel[:_MAX_NAME_CHARS]!r}, which does not exist")
                elif self._may_pass(len(data)):
                    self._emit(message)
            case ipc.DisconnectClient(reason=reason):
                if self._may_pass(1):
                    cut = None if reason is None else reason[:_MAX_REASON_CHARS]
                    self._emit(msgspec.structs.replace(message, reason=cut))

    def _of_stream(
        self, message: ipc.SpeakStart | ipc.SpeakText | ipc.SpeakEnd, session: _SessionInChild
    ) -> None:
        """One stream at a time, of so much text; what breaks that is cut off there, and nothing left out."""
        stream = session.stream
        if isinstance(message, ipc.SpeakStart):
            if stream is not None:
                self._drop("the start of a second stream of speech, while one is open")
                return
            session.stream = stream = _Stream(message.speech_id)
            if self._may_pass(1):
                self._emit(message)
            else:
                self._cut_off(stream, message.session_id)
        elif stream is None or stream.speech_id != message.speech_id:
            self._drop(f"{type(message).__name__} of a stream of speech that is not open")
        elif isinstance(message, ipc.SpeakEnd):
            session.stream = None
            if not stream.cut_off:
                self._emit(message)
        elif stream.cut_off:
            self.dropped += 1
        else:
            self._piece(message, stream)

    def _piece(self, message: ipc.SpeakText, stream: _Stream) -> None:
        size = len(message.text)
        stream.chars += size
        if size > ipc.MAX_SPEAK_CHARS or stream.chars > ipc.MAX_STREAM_CHARS:
            self._drop(
                f"the rest of a stream of speech: at most {ipc.MAX_SPEAK_CHARS} characters in one piece and "
                f"{ipc.MAX_STREAM_CHARS} in all are spoken"
            )
            self._cut_off(stream, message.session_id)
        elif self._may_pass(size, messages=_PIECE_OF_STREAM):
            self._emit(message)
        else:
            self._cut_off(stream, message.session_id)

    def _cut_off(self, stream: _Stream, session_id: str) -> None:
        stream.cut_off = True
        self._emit(ipc.SpeakEnd(session_id=session_id, speech_id=stream.speech_id, complete=False))

    def _loaded(self, message: ipc.AgentLoaded) -> None:
        if self.loaded:
            self._drop("a second agent_loaded")
            return
        self.loaded = True
        self._watchdog.loaded()
        self._emit(
            ipc.AgentLoaded(
                hooks=[hook[:_MAX_NAME_CHARS] for hook in message.hooks[:32]],
                commands=[phrase[: ipc.MAX_COMMAND_CHARS] for phrase in message.commands[: ipc.MAX_COMMANDS]],
            )
        )

    def _failed(self, message: ipc.AgentError) -> None:
        if message.session_id is None:
            told = self._failed_everywhere
            self._failed_everywhere = True
            for session_id in self._sessions:
                self._watchdog.session_started(session_id)
        else:
            session = self._sessions.get(message.session_id)
            told = session is None or session.failed
            if session is not None:
                session.failed = True
                self._watchdog.session_started(message.session_id)
        if told:
            self._drop("an agent_error of a session that is not here, or had failed before")
            return
        self._emit(
            AgentError(
                session_id=message.session_id,
                hook=message.hook[:_MAX_NAME_CHARS],
                message=message.message[: ipc.MAX_ERROR_MESSAGE_CHARS],
                stack=message.stack[-ipc.MAX_STACK_CHARS :],
                last_log_lines=self._journal.last_lines,
            )
        )

    def _may_pass(self, size: int, *, messages: float = 1.0) -> bool:
        now = self._clock.monotonic()
        allowed = self._gate.allows(size, now=now, messages=messages)
        if not allowed:
            self.dropped += 1
        self._tell_refused(self._gate.refused_to_tell(now=now))
        return allowed

    def _tell_refused(self, refused: int) -> None:
        if refused:
            self._journal.remark(
                f"{refused} messages were dropped: the agent sends more than a client can take"
            )

    def _drop(self, words: str) -> None:
        self.dropped += 1
        self._journal.remark(f"dropped: {words}")


def _is_json(text: str) -> bool:
    try:
        _json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
