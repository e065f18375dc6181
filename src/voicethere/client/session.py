"""One session, as an application sees it: connect, talk, hear of every failure once, end.

What a message means is decided in `interpret`, how the runner is reached in `link`, how it is reached again
in `recovery`; here is what follows from it for the session.

A session's states are connecting → connected ⇄ reconnecting → ended; `_finish` is the only way to the last
one. A connection that is lost once it was there is made again, unless somebody said that the session is over.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from voicethere.adapters.rtc.peer import MessageTooLarge
from voicethere.client.audio import Microphone, PcmSink
from voicethere.client.background import BackgroundTasks
from voicethere.client.callbacks import Callback, CallbackLane
from voicethere.client.customer_context import checked_context
from voicethere.client.ending import ConnectError, Ending, SessionEnd
from voicethere.client.interpret import (
    ApplicationMessage,
    ErrorReported,
    SessionClosed,
    SpeechEventReceived,
    TokenReplaced,
    Unreadable,
    interpret,
)
from voicethere.client.link import BinaryMessage, LinkEvents, RunnerLink
from voicethere.client.local_errors import local_error
from voicethere.client.recovery import Recovery, RecoveryEvents
from voicethere.client.signaling import SignalingRefused
from voicethere.client.voice import Voice
from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.control_channel import (
    MAX_JSON_MESSAGE_BYTES,
    Chat,
    EndReason,
    SessionClose,
    SessionHello,
    SpeakRequest,
    SpeechEvent,
)
from voicethere.wire.session_api import Credentials, Mode
from voicethere.wire.tagged import encode_text

_log = logging.getLogger("voicethere.client")

DEFAULT_CONNECT_TIMEOUT = 30.0
_CLOSE_GRACE_SECONDS = 5.0
"""After `session_close`: how long the runner may take to close the peer."""
_FLUSH_SECONDS = 1.0
_CALLBACK_GRACE_SECONDS = 5.0
_MAX_HELD_MESSAGES = 64


class SessionState(enum.StrEnum):
    """Where a session is."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    ENDED = "ended"


class Session:
    """A session that is connecting, connected or over. Made by `connect_session`."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        customer_context: Mapping[str, Any] | None,
        on_session_error: Callback[SessionErrorEnvelope] | None,
        on_control_message: Callback[Any] | None,
        on_speech_event: Callback[SpeechEvent] | None,
        on_binary: Callback[BinaryMessage] | None,
        on_protocol_problem: Callback[str] | None,
        on_state_change: Callback[SessionState] | None,
        microphone: Microphone | None,
        speaker: PcmSink | None,
        send_audio: bool,
        mode: Mode | None,
        rejoin_delays: Sequence[float],
    ) -> None:
        self._session_id = credentials.session_id
        self._context = checked_context(customer_context)
        self._mode = mode or credentials.mode
        self._errors = CallbackLane("on_session_error", on_session_error)
        self._messages = CallbackLane("on_control_message", on_control_message)
        self._speech_events = CallbackLane("on_speech_event", on_speech_event)
        self._binary = CallbackLane("on_binary", on_binary)
        self._problems = CallbackLane("on_protocol_problem", on_protocol_problem)
        self._states = CallbackLane("on_state_change", on_state_change)
        self._lanes: tuple[CallbackLane[Any], ...] = (
            self._errors,
            self._messages,
            self._speech_events,
            self._binary,
            self._problems,
            self._states,
        )
        self._voice = Voice(microphone, speaker)
        self._state = SessionState.CONNECTING
        self._connected = asyncio.Event()
        self._ended: asyncio.Future[SessionEnd] = asyncio.get_running_loop().create_future()
        self._held: deque[str] = deque(maxlen=_MAX_HELD_MESSAGES)
        self._ending = Ending()
        self._left = False
        self._tasks = BackgroundTasks(self._task_failed)
        self._releasing: asyncio.Task[None] | None = None
        self._link = RunnerLink(
            credentials,
            mode=self._mode,
            send_audio=send_audio,
            tasks=self._tasks,
            events=LinkEvents(
                opened=self._on_control_open,
                carries=self._on_carried,
                lost=self._on_lost,
                unusable=self._on_unusable_offer,
                control=self._understand,
                binary=self._binary.call,
                audio=self._voice.hear,
                error_signaled=self._on_error_signaled,
                runner_gone=self._finish_as_explained,
                socket_lost=self._on_socket_lost,
                problem=self._problem,
            ),
        )
        self._recovery = Recovery(
            self._link,
            ending=self._ending,
            tasks=self._tasks,
            delays=rejoin_delays,
            events=RecoveryEvents(
                retrying=self._on_retrying, explained=self._finish_as_explained, failed=self._finish_with
            ),
        )
        self.protocol_problems = 0
        """Frames from the runner or the gateway that were not understood, and ignored."""

    # -------------------------------------------------------------- what an application asks

    @property
    def session_id(self) -> str:
        """The platform's id of this session."""
        return self._session_id

    @property
    def mode(self) -> Mode:
        """What the session carries."""
        return self._mode

    @property
    def state(self) -> SessionState:
        """Where the session is."""
        return self._state

    @property
    def closed(self) -> Awaitable[SessionEnd]:
        """Await it for how the session ended."""
        return asyncio.shield(self._ended)

    async def wait_connected(self, timeout: float = DEFAULT_CONNECT_TIMEOUT) -> None:
        """Wait until the session is connected (the first time) as its mode asks.

        Raises:
            ConnectError: it ended before, or was not connected in `timeout` seconds
                (`WEBRTC_CONNECT_TIMEOUT`: the session is closed then).
        """
        connected = asyncio.create_task(self._connected.wait())
        try:
            waited_for: list[asyncio.Future[Any]] = [connected, self._ended]
            await asyncio.wait(waited_for, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connected.cancel()
        if self._connected.is_set():
            return
        if not self._ended.done():
            self._finish_with(SessionErrorCode.WEBRTC_CONNECT_TIMEOUT, f"Not connected within {timeout:g} s.")
        await self._released()
        raise ConnectError(self._ended.result())

    def send_chat(self, text: str) -> None:
        """Send a user's turn as text (`on_data_channel_message` of the agent). Errors as for `send`."""
        self.send_text(encode_text(Chat(text=text)))

    def request_speech(self, text: str) -> None:
        """Ask for this text to be spoken, where the project allows it. Errors as for `send`."""
        self.send_text(encode_text(SpeakRequest(text=text)))

    def send(self, payload: Any) -> None:
        """Send any JSON value to the agent.

        Raises:
            TypeError: it is not JSON.
            ValueError: more than 64 KiB, or more than the runner takes.
            ConnectionError: the session is over, the runner does not keep up, or 64 messages wait already.
        """
        self.send_text(msgspec.json.encode(payload).decode())

    def send_text(self, text: str) -> None:
        """Send text as it is; while there is no open channel it is held. Errors as for `send`."""
        size = len(text.encode())
        if size > MAX_JSON_MESSAGE_BYTES:
            raise MessageTooLarge(f"a message of {size} bytes; {MAX_JSON_MESSAGE_BYTES} are allowed")
        self._refuse_when_ended()
        leg = self._link.leg
        if leg is None or not leg.control_open:
            if len(self._held) == _MAX_HELD_MESSAGES:
                raise ConnectionError(f"{_MAX_HELD_MESSAGES} messages wait for the connection already")
            self._held.append(text)
        elif not leg.peer.send_control(text):
            raise ConnectionError("the message was not sent: the runner does not keep up, or is gone")

    def send_binary(self, data: bytes, channel: str = "sync") -> None:
        """Send bytes on `control` or `sync` (`on_data_channel_binary` of the agent). They are never held.

        Raises:
            ValueError: no such channel, or more than the runner takes.
            ConnectionError: not connected, or the runner does not keep up.
        """
        self._refuse_when_ended()
        leg = self._link.leg
        if leg is None:
            raise ConnectionError("not connected now")
        if not leg.peer.send_binary(data, channel):
            raise ConnectionError(
                "the bytes were not sent: the channel is not open, or the runner does not keep up"
            )

    async def close(self, reason: str | None = None) -> None:
        """End the session: tell the runner, then close everything. Harmless when it is over."""
        for lane in self._lanes:
            lane.spare(asyncio.current_task())
        # From here on a lost connection is what we asked for, and what fails while the agent says goodbye is
        # for the operator: an application that has left is not called any more.
        self._left = True
        first_word = self._ending.heard_close(SessionClosed(EndReason.CLIENT_CLOSE_SIGNAL.value, None))
        leg = self._link.leg
        if self._state is not SessionState.ENDED and first_word and leg is not None and leg.control_open:
            farewell = SessionClose(
                reason=UNSET if reason is None else reason,
                customer_context=UNSET if self._context is None else self._context,
            )
            if leg.peer.send_control(encode_text(farewell), urgent=True):
                await leg.peer.flush(_FLUSH_SECONDS)
        self._finish_as_explained()
        await self._released()

    def _refuse_when_ended(self) -> None:
        if self._state is SessionState.ENDED:
            raise ConnectionError(f"the session is over: {self._ended.result().reason}")

    # -------------------------------------------------------------- connecting

    def start(self) -> None:
        """Begin to connect. Called once, by `connect_session`."""
        self._tasks.spawn(self._join(), "join")

    async def _join(self) -> None:
        try:
            await self._link.join()
        except SignalingRefused as refusal:
            self._finish_with(SessionErrorCode.WEBRTC_CONNECTION_FAILED, f"{refusal}.")

    def _on_control_open(self) -> None:
        leg = self._link.leg
        if leg is None or self._state is SessionState.ENDED:
            return
        if self._context is not None:
            leg.peer.send_control(encode_text(SessionHello(customer_context=self._context)), urgent=True)
        if self._state is SessionState.CONNECTED:
            self._voice.speak_on(leg.peer.speech)
        while self._held:
            leg.peer.send_control(self._held.popleft())

    def _on_carried(self) -> None:
        if self._state is SessionState.ENDED:
            return
        leg = self._link.leg
        self._voice.speak_on(None if leg is None else leg.peer.speech)
        self._enter(SessionState.CONNECTED)
        self._connected.set()
        self._recovery.connected()

    def _on_unusable_offer(self, detail: str) -> None:
        if self._state is SessionState.CONNECTING:
            self._finish_with(SessionErrorCode.WEBRTC_CONNECTION_FAILED, detail)

    # -------------------------------------------------------------- losing and coming back

    def _on_socket_lost(self) -> None:
        if self._state is SessionState.CONNECTED:
            self._recovery.stay_in_room()
        elif self._state is SessionState.CONNECTING and (self._link.leg is None or self._ending.begun):
            self._finish_with(
                SessionErrorCode.WEBRTC_CONNECTION_FAILED,
                "The signaling socket closed before the session was connected.",
            )

    def _on_lost(self, code: SessionErrorCode) -> None:
        if self._state is SessionState.ENDED:
            return
        if self._ending.begun:
            self._finish_as_explained()
            return
        if self._state is SessionState.CONNECTED:
            self._enter(SessionState.RECONNECTING)
            self._voice.speak_on(None)
        self._recovery.connection_lost(code, resumable=self._state is SessionState.RECONNECTING)

    def _on_retrying(self, code: SessionErrorCode) -> None:
        self._report(local_error(code, self._session_id, detail="Reconnecting.", recoverable=True))

    # -------------------------------------------------------------- what the runner says

    def _understand(self, text: str) -> None:
        if self._state is SessionState.ENDED:
            return
        match interpret(text, self._session_id):
            case ErrorReported(envelope=envelope):
                self._report(envelope)
            case SessionClosed() as said:
                self._on_close_said(said)
            case TokenReplaced(token=token):
                self._link.token = token
            case SpeechEventReceived(event=event, payload=payload):
                if self._speech_events.wanted:
                    self._speech_events.call(event)
                else:
                    self._messages.call(payload)
            case ApplicationMessage(payload=payload, problem=problem):
                if problem is not None:
                    self._problem(problem)
                self._messages.call(payload)
            case Unreadable(problem=problem):
                self._problem(problem)

    def _problem(self, words: str) -> None:
        self.protocol_problems += 1
        _log.info("session %s: %s", self._session_id, words)
        self._problems.call(words)

    def _report(self, envelope: SessionErrorEnvelope) -> None:
        if self._left:
            return
        if self._state is not SessionState.ENDED and self._ending.heard_error(envelope):
            self._errors.call(envelope)

    def _on_error_signaled(self, envelope: SessionErrorEnvelope) -> None:
        self._report(envelope)
        if self._ending.begun and self._state is SessionState.RECONNECTING:
            self._finish_as_explained()  # there is no peer that anybody could close

    def _on_close_said(self, said: SessionClosed) -> None:
        if said.error is not None and not self._ending.begun:
            self._report(said.error)
        if self._ending.heard_close(said):
            self._tasks.spawn(self._end_soon(), "close-grace")

    async def _end_soon(self) -> None:
        """The runner closes the peer after `session_close`; if it does not, we do."""
        await asyncio.sleep(_CLOSE_GRACE_SECONDS)
        self._finish_as_explained()

    # -------------------------------------------------------------- the end

    def _enter(self, state: SessionState) -> None:
        if state is not self._state:
            self._state = state
            self._states.call(state)

    def _finish_as_explained(self) -> None:
        end = self._ending.outcome()
        if end is not None:
            self._finish(end)

    def _finish_with(self, code: SessionErrorCode, detail: str) -> None:
        """End with an error that the client found out by itself, unless the end is explained already."""
        error = local_error(code, self._session_id, detail=detail)
        self._report(error)
        self._finish(self._ending.outcome() or SessionEnd(reason=error.code, error=error))

    def _finish(self, end: SessionEnd) -> None:
        if self._state is SessionState.ENDED:
            return
        self._enter(SessionState.ENDED)
        self._ended.set_result(end)
        self._releasing = asyncio.create_task(self._release(), name="session-release")

    async def abandon(self) -> None:
        """Give up connecting without a word to anybody, and wait until everything is released."""
        self._finish(SessionEnd(reason=EndReason.CLIENT_CLOSE_SIGNAL.value))
        await self._released()

    async def _released(self) -> None:
        if self._releasing is not None:
            await asyncio.shield(self._releasing)

    async def _release(self) -> None:
        await self._tasks.aclose()
        await self._link.aclose()
        for lane in self._lanes:
            await lane.finish(_CALLBACK_GRACE_SECONDS)
        await self._voice.aclose()

    def _task_failed(self, name: str, failure: BaseException) -> None:
        # A mistake of ours must not be silence for the application.
        _log.error("session %s: %s failed", self._session_id, name, exc_info=failure)
        self._finish_with(SessionErrorCode.WEBRTC_CONNECTION_FAILED, "The client itself failed; see its log.")
