"""The way to the runner: one signaling socket, and the leg that carries the session.

Rejoining brings a fresh offer. The leg before goes on until the new one's control channel is open, so that
a rejoin with a connection in good order interrupts nothing. What a loss means for the session is not known
here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from voicethere.adapters.rtc.candidates import MalformedCandidate
from voicethere.adapters.rtc.descriptions import BadDescription
from voicethere.adapters.rtc.events import (
    AudioProblem,
    AudioReceived,
    ConnectFailed,
    ControlOpened,
    ControlReceived,
    PeerEvent,
    SyncReceived,
)
from voicethere.adapters.rtc.peer import PeerSetupError
from voicethere.client.background import BackgroundTasks
from voicethere.client.leg import Leg, loss
from voicethere.client.signaling import (
    CandidateReceived,
    OfferReceived,
    RunnerGone,
    SessionErrorSignaled,
    SignalingProblem,
    SignalingSocket,
)
from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.session_api import Credentials, Mode

_CONNECT_SECONDS = 20.0
_FRESH_OFFER_SECONDS = 2.0
_FLUSH_SECONDS = 1.0


class BinaryMessage(msgspec.Struct, frozen=True):
    """A binary frame from the agent; `channel` is `control` or `sync`."""

    data: bytes
    channel: str


class LinkEvents(msgspec.Struct, frozen=True, kw_only=True):
    """What the link calls, on the event loop.

    `opened`: voice-control is open on the leg that carries the session from now on. `carries`: that leg is
    connected as the mode asks. `lost`: no leg is left. `unusable`: an offer cannot be answered.
    """

    opened: Callable[[], None]
    carries: Callable[[], None]
    lost: Callable[[SessionErrorCode], None]
    unusable: Callable[[str], None]
    control: Callable[[str], None]
    binary: Callable[[BinaryMessage], None]
    audio: Callable[[bytes], None]
    error_signaled: Callable[[SessionErrorEnvelope], None]
    runner_gone: Callable[[], None]
    socket_lost: Callable[[], None]
    problem: Callable[[str], None]


class RunnerLink:
    """`token` is the newest join token."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        mode: Mode,
        send_audio: bool,
        tasks: BackgroundTasks,
        events: LinkEvents,
    ) -> None:
        self.token = credentials.join_token
        self._credentials = credentials
        self._mode = mode
        self._send_audio = send_audio
        self._tasks = tasks
        self._events = events
        self._peer_id: str | None = None
        self._socket: SignalingSocket | None = None
        self._leg: Leg | None = None
        self._coming: Leg | None = None
        self._carried = asyncio.Event()
        self._offered_at = 0.0
        self._unclosed: set[Leg] = set()
        self._closing = False

    # -------------------------------------------------------------- state

    @property
    def leg(self) -> Leg | None:
        """The leg that carries the session, or is about to."""
        return self._leg

    @property
    def in_room(self) -> bool:
        """Whether the signaling socket is open, as far as is known."""
        return self._socket is not None

    @property
    def coming_back(self) -> bool:
        """Whether the runner has offered again by itself, a moment ago, and that is being answered.

        Joining again now would have it offer once more, and give up what may be connected in the next moment.
        """
        pending = self._leg is not None and not self._carried.is_set()
        fresh = asyncio.get_running_loop().time() - self._offered_at < _FRESH_OFFER_SECONDS
        return self.in_room and pending and fresh

    async def carried(self) -> None:
        """Wait until a leg is connected as the mode asks."""
        await self._carried.wait()

    # -------------------------------------------------------------- signaling

    async def join(self) -> None:
        """Join the session's room, or join it again as the same peer.

        Raises:
            SignalingRefused: no connection, or the token was refused; an earlier socket stays.
        """
        socket = await SignalingSocket.join(self._credentials, token=self.token, peer_id=self._peer_id)
        before, self._socket = self._socket, socket
        self._peer_id = socket.peer_id
        if before is not None:
            self._tasks.spawn(before.close(), "replaced-socket")
        self._tasks.spawn(self._read(socket), "signaling")

    async def _read(self, socket: SignalingSocket) -> None:
        try:
            async for signal in socket.signals():
                if socket is not self._socket:
                    return
                match signal:
                    case OfferReceived(sdp=sdp):
                        await self._answer(socket, sdp)
                    case CandidateReceived(candidate=candidate):
                        leg = self._coming or self._leg
                        if leg is not None:
                            try:
                                await leg.peer.add_candidate(candidate)
                            except MalformedCandidate as error:
                                self._events.problem(f"a candidate of the runner: {error}")
                    case SessionErrorSignaled(envelope=envelope):
                        self._events.error_signaled(envelope)
                    case RunnerGone():
                        self._events.runner_gone()
                    case SignalingProblem(problem=problem):
                        self._events.problem(problem)
        finally:
            lost = socket is self._socket
            if lost:
                self._socket = None
            await socket.close()
        if lost:
            self._events.socket_lost()

    async def _answer(self, socket: SignalingSocket, sdp: str) -> None:
        if self._closing:
            return
        try:
            leg = Leg(
                audio=self._mode.has_audio and self._send_audio,
                ice_servers=self._credentials.ice_servers,
                on_event=self._on_event,
                connect_seconds=_CONNECT_SECONDS,
            )
        except PeerSetupError as error:
            self._events.unusable(f"No peer: {error}.")
            return
        self._unclosed.add(leg)
        self._offered_at = asyncio.get_running_loop().time()
        if self._coming is not None:
            self._give_up(self._coming)
        if self._leg is not None and not self._leg.control_open:
            # It never came up, and the runner has given it up for this one.
            self._give_up(self._leg)
            self._leg = None
        if self._leg is None:
            self._leg = leg
        else:
            self._coming = leg
        try:
            answer = await leg.peer.answer_to(sdp)
        except BadDescription as error:
            self._events.problem(f"the runner's offer: {error}")
            self._forget(leg)
            self._events.unusable("The runner's offer cannot be answered.")
            return
        if not leg.over:
            await socket.answer(answer)

    # -------------------------------------------------------------- legs

    def _on_event(self, leg: Leg, event: PeerEvent) -> None:
        if self._closing or leg.over:
            return
        match event:
            # What was said on a leg before it was replaced counts as well.
            case ControlReceived(data=str() as text):
                self._events.control(text)
            case ControlReceived(data=bytes() as data):
                self._events.binary(BinaryMessage(data, "control"))
            case SyncReceived(data=data):
                self._events.binary(BinaryMessage(data, "sync"))
            case AudioReceived(pcm=pcm) if leg is self._leg:
                self._events.audio(pcm)
            case AudioProblem(message=message) if leg is self._leg:
                self._events.problem(message)
            case ControlOpened() if leg is self._leg or leg is self._coming:
                self._promote(leg)
            case ConnectFailed() if leg is self._coming:
                self._forget(leg)
            case _ if (code := loss(event)) is not None:
                self._on_loss(leg, code)
        if leg is self._leg and not self._carried.is_set() and leg.carries(self._mode):
            self._carried.set()
            self._events.carries()

    def _promote(self, leg: Leg) -> None:
        if leg is self._coming:
            if self._leg is not None:
                self._tasks.spawn(self._retire(self._leg), "replaced-leg")
            self._leg, self._coming = leg, None
            self._carried.clear()
        self._events.opened()

    def _on_loss(self, leg: Leg, code: SessionErrorCode) -> None:
        carried = leg is self._leg
        self._forget(leg)
        if carried:
            self._leg, self._coming = self._coming, None
            self._carried.clear()
            self._events.lost(code)

    def _forget(self, leg: Leg) -> None:
        if leg is self._coming:
            self._coming = None
        if leg is self._leg:
            self._leg = None
        self._give_up(leg)

    def _give_up(self, leg: Leg) -> None:
        leg.over = True
        self._tasks.spawn(self._close(leg), "lost-leg")

    async def _retire(self, leg: Leg) -> None:
        """Let what is on its way in both directions arrive, then close."""
        await leg.peer.flush(_FLUSH_SECONDS)
        await self._close(leg)

    async def _close(self, leg: Leg) -> None:
        await leg.peer.close()
        self._unclosed.discard(leg)

    # -------------------------------------------------------------- the end

    async def aclose(self) -> None:
        """Close every leg and the socket. The session's background tasks are over by then."""
        self._closing = True
        for leg in tuple(self._unclosed):
            await leg.peer.close()
        self._unclosed.clear()
        if self._socket is not None:
            await self._socket.close()
            self._socket = None
