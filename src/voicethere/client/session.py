"""One session, as an application sees it: connect, talk, hear of every failure once, end.

Owns the signaling socket and the peer. What a message means is decided in `interpret`; here is what
follows from it. There is no reconnecting: when the transport is lost the session is over.

A session's states are connecting → connected → ended; `_finish` is the only way to the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from collections import deque
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from voicethere.adapters.rtc.candidates import MalformedCandidate
from voicethere.adapters.rtc.client_peer import INBOUND_SAMPLE_RATE, ClientPeer
from voicethere.adapters.rtc.descriptions import BadDescription
from voicethere.adapters.rtc.events import (
    AudioProblem,
    AudioReceived,
    ConnectFailed,
    ConnectionState,
    ConnectionStateChanged,
    ControlClosed,
    ControlOpened,
    ControlReceived,
    PeerEvent,
    SyncOpened,
    SyncReceived,
)
from voicethere.adapters.rtc.opus import encode_speech
from voicethere.adapters.rtc.peer import MessageTooLarge, PeerSetupError
from voicethere.client.audio import Microphone, PcmSink
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
from voicethere.client.local_errors import local_error
from voicethere.client.signaling import (
    CandidateReceived,
    OfferReceived,
    RunnerGone,
    SessionErrorSignaled,
    SignalingProblem,
    SignalingRefused,
    SignalingSocket,
)
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
_EXPLANATION_GRACE_SECONDS = 0.5
"""When the transport is lost: how long the gateway may take to say that the runner died."""
_CLOSE_GRACE_SECONDS = 5.0
"""After `session_close`: how long the runner may take to close the peer."""
_FLUSH_SECONDS = 1.0
_CALLBACK_GRACE_SECONDS = 5.0
_MAX_HELD_MESSAGES = 64


class SessionState(enum.StrEnum):
    """Where a session is."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    ENDED = "ended"


class BinaryMessage(msgspec.Struct, frozen=True):
    """A binary frame from the agent; `channel` is `control` or `sync`."""

    data: bytes
    channel: str


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
        microphone: Microphone | None,
        speaker: PcmSink | None,
        send_audio: bool,
        mode: Mode | None,
    ) -> None:
        self._credentials = credentials
        self._context = checked_context(customer_context)
        self._mode = mode or credentials.mode
        self._errors = CallbackLane("on_session_error", on_session_error)
        self._messages = CallbackLane("on_control_message", on_control_message)
        self._speech_events = CallbackLane("on_speech_event", on_speech_event)
        self._binary = CallbackLane("on_binary", on_binary)
        self._problems = CallbackLane("on_protocol_problem", on_protocol_problem)
        self._lanes: tuple[CallbackLane[Any], ...] = (
            self._errors,
            self._messages,
            self._speech_events,
            self._binary,
            self._problems,
        )
        self._microphone = microphone
        self._speaker = speaker
        self._speaker_failed = False
        self._send_audio = send_audio

        loop = asyncio.get_running_loop()
        self._state = SessionState.CONNECTING
        self._connected = asyncio.Event()
        self._ended: asyncio.Future[SessionEnd] = loop.create_future()
        self._token = credentials.join_token
        self._socket: SignalingSocket | None = None
        self._peer: ClientPeer | None = None
        self._peer_up = False
        self._control_open = False
        self._sync_open = False
        self._audio_in = False
        self._held: deque[str] = deque(maxlen=_MAX_HELD_MESSAGES)
        self._ending = Ending()
        self._tasks: set[asyncio.Task[None]] = set()
        self._releasing: asyncio.Task[None] | None = None
        self._losing = False
        self.protocol_problems = 0
        """Frames from the runner or the gateway that were not understood, and ignored."""

    # -------------------------------------------------------------- what an application asks

    @property
    def session_id(self) -> str:
        """The platform's id of this session."""
        return self._credentials.session_id

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
        """Wait until the session is connected as its mode asks.

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
            ConnectionError: the session is over, or the runner does not keep up.
        """
        self.send_text(msgspec.json.encode(payload).decode())

    def send_text(self, text: str) -> None:
        """Send text as it is; before the channel is open it is held. Errors as for `send`."""
        size = len(text.encode())
        if size > MAX_JSON_MESSAGE_BYTES:
            raise MessageTooLarge(f"a message of {size} bytes; {MAX_JSON_MESSAGE_BYTES} are allowed")
        self._refuse_when_ended()
        if self._peer is None or not self._control_open:
            if len(self._held) == _MAX_HELD_MESSAGES:
                raise ConnectionError(f"{_MAX_HELD_MESSAGES} messages wait for the connection already")
            self._held.append(text)
        elif not self._peer.send_control(text):
            raise ConnectionError("the message was not sent: the runner does not keep up, or is gone")

    def send_binary(self, data: bytes, channel: str = "sync") -> None:
        """Send bytes on `control` or `sync` (`on_data_channel_binary` of the agent).

        Raises:
            ValueError: no such channel, or more than the runner takes.
            ConnectionError: not connected, or the runner does not keep up.
        """
        self._refuse_when_ended()
        if self._peer is None:
            raise ConnectionError("not connected yet")
        if not self._peer.send_binary(data, channel):
            raise ConnectionError(
                "the bytes were not sent: the channel is not open, or the runner does not keep up"
            )

    async def close(self, reason: str | None = None) -> None:
        """End the session: tell the runner, then close everything. Harmless when it is over."""
        for lane in self._lanes:
            lane.spare(asyncio.current_task())
        # From here on a lost connection is what we asked for.
        first_word = self._ending.heard_close(SessionClosed(EndReason.CLIENT_CLOSE_SIGNAL.value, None))
        if (
            self._state is not SessionState.ENDED
            and first_word
            and self._control_open
            and self._peer is not None
        ):
            farewell = SessionClose(
                reason=UNSET if reason is None else reason,
                customer_context=UNSET if self._context is None else self._context,
            )
            if self._peer.send_control(encode_text(farewell), urgent=True):
                await self._peer.flush(_FLUSH_SECONDS)
        self._finish_as_explained()
        await self._released()

    def _refuse_when_ended(self) -> None:
        if self._state is SessionState.ENDED:
            raise ConnectionError(f"the session is over: {self._ended.result().reason}")

    # -------------------------------------------------------------- signaling

    def start(self) -> None:
        """Begin to connect. Called once, by `connect_session`."""
        self._spawn(self._signal(), "signaling")

    async def _signal(self) -> None:
        try:
            self._socket = await SignalingSocket.join(self._credentials, token=self._token)
        except SignalingRefused as refusal:
            self._finish_with(SessionErrorCode.WEBRTC_CONNECTION_FAILED, f"{refusal}.")
            return
        async for signal in self._socket.signals():
            match signal:
                case OfferReceived(sdp=sdp):
                    await self._answer(sdp)
                case CandidateReceived(candidate=candidate):
                    if self._peer is not None:
                        try:
                            await self._peer.add_candidate(candidate)
                        except MalformedCandidate as error:
                            self._problem(f"a candidate of the runner: {error}")
                case SessionErrorSignaled(envelope=envelope):
                    self._report(envelope)
                case RunnerGone():
                    # Once its death is explained, nobody else will close the peer.
                    self._finish_as_explained()
                case SignalingProblem(problem=problem):
                    self._problem(problem)
        self._on_socket_lost()

    def _on_socket_lost(self) -> None:
        self._ending.settled.set()
        if self._state is SessionState.CONNECTING and (self._peer is None or self._ending.begun):
            self._finish_with(
                SessionErrorCode.WEBRTC_CONNECTION_FAILED,
                "The signaling socket closed before the session was connected.",
            )
        elif self._state is SessionState.CONNECTED:
            _log.info("session %s: the signaling socket is gone", self.session_id)

    async def _answer(self, sdp: str) -> None:
        if self._state is SessionState.ENDED or self._ending.begun:
            return
        previous = self._peer
        try:
            peer = ClientPeer(
                audio=self._mode.has_audio and self._send_audio,
                ice_servers=self._credentials.ice_servers,
                on_event=lambda event: self._on_event(peer, event),
                connect_timeout=24 * 3600,  # the session has its own
            )
        except PeerSetupError as error:
            self._finish_with(SessionErrorCode.WEBRTC_CONNECTION_FAILED, f"No peer: {error}.")
            return
        self._peer = peer
        self._peer_up = self._control_open = self._sync_open = self._audio_in = False
        if previous is not None:
            await previous.close()
        try:
            answer = await peer.answer_to(sdp)
        except BadDescription as error:
            self._problem(f"the runner's offer: {error}")
            self._finish_with(
                SessionErrorCode.WEBRTC_CONNECTION_FAILED, "The runner's offer cannot be answered."
            )
            return
        if self._socket is not None:
            await self._socket.answer(answer)

    # -------------------------------------------------------------- the peer

    def _on_event(self, peer: ClientPeer, event: PeerEvent) -> None:
        if peer is not self._peer or self._state is SessionState.ENDED:
            return
        match event:
            case AudioReceived(pcm=pcm):
                self._hear(pcm)
            case ControlReceived(data=str() as text):
                self._understand(text)
            case ControlReceived(data=bytes() as data):
                self._binary.call(BinaryMessage(data, "control"))
            case SyncReceived(data=data):
                self._binary.call(BinaryMessage(data, "sync"))
            case ControlOpened():
                self._on_control_open(peer)
            case SyncOpened():
                self._sync_open = True
                self._look_if_connected()
            case ConnectionStateChanged(state=ConnectionState.CONNECTED):
                self._peer_up = True
                self._look_if_connected()
            case ConnectionStateChanged(state=ConnectionState.FAILED):
                self._lost(SessionErrorCode.WEBRTC_CONNECTION_FAILED)
            case ConnectionStateChanged(state=ConnectionState.CLOSED) | ControlClosed():
                self._lost(SessionErrorCode.WEBRTC_CONNECTION_CLOSED)
            case AudioProblem(message=message):
                self._problem(message)
            case ConnectionStateChanged() | ConnectFailed():
                return

    def _on_control_open(self, peer: ClientPeer) -> None:
        self._control_open = True
        if self._context is not None:
            peer.send_control(encode_text(SessionHello(customer_context=self._context)), urgent=True)
        while self._held:
            peer.send_control(self._held.popleft())
        self._look_if_connected()

    def _look_if_connected(self) -> None:
        if self._state is not SessionState.CONNECTING or not self._peer_up or self._peer is None:
            return
        speech = self._peer.speech
        audio = self._audio_in and (speech is None or speech.sent_packets > 0)
        channels = self._control_open and self._sync_open
        if (audio or self._mode is Mode.DATA) and (channels or self._mode is Mode.VOICE):
            self._state = SessionState.CONNECTED
            self._connected.set()
            if speech is not None and self._microphone is not None:
                speech.play(encode_speech(self._microphone.chunks(), self._microphone.sample_rate))

    def _hear(self, pcm: bytes) -> None:
        self._audio_in = True
        self._look_if_connected()
        if self._speaker is not None:
            try:
                self._speaker.write(pcm, INBOUND_SAMPLE_RATE)
            except Exception:
                if not self._speaker_failed:
                    _log.exception("the speaker raised; the session goes on")
                self._speaker_failed = True

    def _understand(self, text: str) -> None:
        match interpret(text, self.session_id):
            case ErrorReported(envelope=envelope):
                self._report(envelope)
            case SessionClosed() as said:
                self._on_close_said(said)
            case TokenReplaced(token=token):
                self._token = token
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
        _log.info("session %s: %s", self.session_id, words)
        self._problems.call(words)

    # -------------------------------------------------------------- errors and the end

    def _report(self, envelope: SessionErrorEnvelope) -> None:
        if self._state is not SessionState.ENDED and self._ending.heard_error(envelope):
            self._errors.call(envelope)

    def _on_close_said(self, said: SessionClosed) -> None:
        if said.error is not None and not self._ending.begun:
            self._report(said.error)
        if self._ending.heard_close(said):
            self._spawn(self._end_soon(), "close-grace")

    async def _end_soon(self) -> None:
        """The runner closes the peer after `session_close`; if it does not, we do."""
        await asyncio.sleep(_CLOSE_GRACE_SECONDS)
        self._finish_as_explained()

    def _lost(self, code: SessionErrorCode) -> None:
        if self._ending.settled.is_set():
            self._finish_lost(code)
        elif not self._losing:
            self._losing = True
            self._spawn(self._finish_after_grace(code), "loss-grace")

    async def _finish_after_grace(self, code: SessionErrorCode) -> None:
        # The runner may have died: then the gateway says so within a moment.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXPLANATION_GRACE_SECONDS):
                await self._ending.settled.wait()
        self._finish_lost(code)

    def _finish_lost(self, code: SessionErrorCode) -> None:
        if self._ending.begun:
            self._finish_as_explained()
        else:
            self._finish_with(code, "")

    def _finish_as_explained(self) -> None:
        end = self._ending.outcome()
        if end is not None:
            self._finish(end)

    def _finish_with(self, code: SessionErrorCode, detail: str) -> None:
        """End with an error that the client found out by itself, unless the end is explained already."""
        error = local_error(code, self.session_id, detail=detail)
        self._report(error)
        self._finish(self._ending.outcome() or SessionEnd(reason=error.code, error=error))

    def _finish(self, end: SessionEnd) -> None:
        if self._state is SessionState.ENDED:
            return
        self._state = SessionState.ENDED
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._peer is not None:
            await self._peer.close()
        if self._socket is not None:
            await self._socket.close()
        for lane in self._lanes:
            await lane.finish(_CALLBACK_GRACE_SECONDS)
        close = getattr(self._speaker, "close", None)
        if close is not None:
            try:
                close()
            except Exception:
                _log.exception("the speaker could not be closed")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            # A mistake of ours must not be silence for the application.
            _log.error("session %s: %s failed", self.session_id, task.get_name(), exc_info=failure)
            self._finish_with(
                SessionErrorCode.WEBRTC_CONNECTION_FAILED, "The client itself failed; see its log."
            )
