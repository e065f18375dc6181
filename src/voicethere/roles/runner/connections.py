"""The client's connections of one session: offers, answers, candidates, losing and coming back.

A *leg* is one peer connection with one peer of the room. Each `client-` peer that joins is offered one; the
leg whose control channel opened last carries the session, and those before it are closed, once what was said
on them has arrived. A leg that is lost while its peer's signaling socket is open is offered again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import structlog

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
    PeerVanished,
    SyncReceived,
)
from voicethere.adapters.rtc.liveness import Patience
from voicethere.adapters.rtc.outbound import SpeechTrack
from voicethere.adapters.rtc.server_peer import ServerPeer
from voicethere.roles.runner.client_leg import OverControlChannel
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.wire.session_api import IceServer
from voicethere.wire.signaling import (
    CLIENT_PEER_PREFIX,
    RUNNER_PEER_ID,
    Description,
    IceCandidate,
    SessionDescription,
    signaling_decoder,
)
from voicethere.wire.tagged import UndecodableMessage, encode_text

_log = structlog.get_logger(__name__)

_LOST_STATES = frozenset({ConnectionState.FAILED, ConnectionState.CLOSED})
MAX_WAITING_SIGNALS = 512


class PeerNotClosed(Exception):
    """A peer connection did not close within its time, or failed to."""


class ConnectionEvents(msgspec.Struct, frozen=True, kw_only=True):
    """What the connections call, on the event loop.

    `opened`: voice-control is open (again). `lost`: there is none any more, or none could be made.
    `broken`: the runner could not even make an offer. `ignored`: a client's signal came to nothing, for this
    reason (one of a few words).
    """

    opened: Callable[[], None]
    lost: Callable[[], None]
    broken: Callable[[BaseException], None]
    control: Callable[[str | bytes], None]
    sync: Callable[[bytes], None]
    audio: Callable[[bytes], None]
    audio_problem: Callable[[str], None]
    ignored: Callable[[str], None]


class _Leg:
    def __init__(self, peer_id: str, peer: ServerPeer) -> None:
        self.peer_id = peer_id
        self.peer = peer
        self.over = False
        self.signals: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING_SIGNALS)
        self.worker: asyncio.Task[Any] | None = None


class ClientConnections(OverControlChannel):
    """`signal(peer_id, text)` sends signaling JSON to a peer of the room."""

    def __init__(
        self,
        *,
        session_id: str,
        room_id: str,
        audio: bool,
        ice_servers: Sequence[IceServer],
        settings: RunnerSettings,
        signal: Callable[[str, str], None],
        events: ConnectionEvents,
    ) -> None:
        self._session_id = session_id
        self._room_id = room_id
        self._audio = audio
        self._ice_servers = ice_servers
        self._settings = settings
        self._signal = signal
        self._events = events
        self._legs: dict[str, _Leg] = {}
        self._active: _Leg | None = None
        self._present: set[str] = set()
        self._replaced: set[_Leg] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = asyncio.Event()

    # -- the room

    def joined(self, peer_id: str) -> None:
        """A peer joined, or joined again: it gets a fresh offer."""
        if self._closing.is_set() or not peer_id.startswith(CLIENT_PEER_PREFIX):
            return
        self._present.add(peer_id)
        self._offer(peer_id)

    def left(self, peer_id: str) -> None:
        """A peer's signaling socket is gone; its connection may well go on, which is looked into."""
        self._present.discard(peer_id)
        for leg in (self._legs.get(peer_id), self._active):
            if leg is not None and leg.peer_id == peer_id:
                leg.peer.doubt()

    def signalled(self, peer_id: str, text: str) -> None:
        """A signaling message from a peer of the room."""
        leg = self._legs.get(peer_id)
        if leg is None:
            self._events.ignored("no_connection")
            return
        try:
            leg.signals.put_nowait(text)
        except asyncio.QueueFull:
            self._events.ignored("too_many")

    # -- sending

    @property
    def track(self) -> SpeechTrack | None:
        """The outbound audio of the leg that carries the session."""
        return None if self._active is None else self._active.peer.speech

    @property
    def max_message_size(self) -> int | None:
        """Bytes that the client takes in one message; None while there is no connection."""
        return None if self._active is None else self._active.peer.max_message_size

    def send_control(self, text: str, *, urgent: bool = False) -> bool:
        """Send on voice-control; False where there is no connection, or the client takes no more."""
        return self._sent(lambda peer: peer.send_control(text, urgent=urgent))

    def send_binary(self, data: bytes, channel: str) -> bool:
        """Send bytes on `control` or `sync`; False as for `send_control`."""
        return self._sent(lambda peer: peer.send_binary(data, channel))

    def _sent(self, send: Callable[[ServerPeer], bool]) -> bool:
        if self._active is None:
            return False
        try:
            return send(self._active.peer)
        except ValueError as problem:
            _log.warning("message_not_sent", session_id=self._session_id, problem=str(problem))
            return False

    async def flush(self, seconds: float) -> bool:
        """Wait until the client has acknowledged everything; False after `seconds`, or without one."""
        return self._active is not None and await self._active.peer.flush(seconds)

    async def aclose(self) -> None:
        """Close every leg; bounded by what a peer's close is bounded by.

        Raises:
            PeerNotClosed: a connection did not close by itself; its traces in this process may stay.
        """
        self._closing.set()
        legs = {*self._legs.values(), *self._replaced} | ({self._active} if self._active else set())
        self._legs.clear()
        self._active = None
        closed = await asyncio.gather(*(self._end(leg) for leg in legs))
        while self._tasks:
            await asyncio.wait(self._tasks)
        if not all(closed):
            raise PeerNotClosed(f"{closed.count(False)} of {len(closed)} hung, or failed, while it closed")

    # -- legs

    def _offer(self, peer_id: str) -> None:
        before = self._legs.pop(peer_id, None)
        if before is not None and before is not self._active:
            # The one that carries the session goes on until the new one does.
            self._give_up(before)
        leg: _Leg

        def on_event(event: PeerEvent) -> None:
            self._peer_event(leg, event)

        try:
            peer = ServerPeer(
                audio=self._audio,
                ice_servers=self._ice_servers,
                on_event=on_event,
                connect_timeout=self._settings.connect_seconds,
                host_addresses=self._settings.host_addresses,
                patience=Patience(
                    quiet_seconds=self._settings.quiet_seconds, answer_seconds=self._settings.answer_seconds
                ),
            )
        except Exception as error:
            self._events.broken(error)
            return
        leg = _Leg(peer_id, peer)
        self._legs[peer_id] = leg
        leg.worker = self._spawn(self._work(leg), "signaling")

    async def _work(self, leg: _Leg) -> None:
        try:
            sdp = await leg.peer.offer()
        except Exception as error:
            if not leg.over:
                self._events.broken(error)
            return
        self._signal(
            leg.peer_id,
            encode_text(
                Description(
                    type="offer",
                    room=self._room_id,
                    peer_id=RUNNER_PEER_ID,
                    target_peer_id=leg.peer_id,
                    sdp=SessionDescription(type="offer", sdp=sdp),
                )
            ),
        )
        while True:
            await self._take(leg, await leg.signals.get())

    async def _take(self, leg: _Leg, text: str) -> None:
        """Whatever is wrong with a client's signal is counted, never fatal (signaling.md)."""
        try:
            message = signaling_decoder.decode(text)
            if isinstance(message, Description) and message.type == "answer":
                await leg.peer.answer(message.sdp.sdp)
            elif isinstance(message, IceCandidate):
                await leg.peer.add_candidate(message.candidate)
            else:
                self._events.ignored("not_for_the_runner")
        except UndecodableMessage:
            self._events.ignored("malformed")
        except Exception as error:
            self._events.ignored("not_usable")
            _log.info("signal_ignored", session_id=self._session_id, problem=str(error)[:200])

    def _peer_event(self, leg: _Leg, event: PeerEvent) -> None:
        if leg.over or self._closing.is_set():
            return
        match event:
            case AudioReceived(pcm=pcm):
                if leg is self._active:
                    self._events.audio(pcm)
            # What was on its way on a leg when the client replaced it counts as well.
            case ControlReceived(data=data):
                if leg is self._active or leg in self._replaced:
                    self._events.control(data)
            case SyncReceived(data=data):
                if leg is self._active or leg in self._replaced:
                    self._events.sync(data)
            case _ if leg in self._replaced:
                pass
            case ControlOpened():
                self._opened(leg)
            case AudioProblem(message=message):
                self._events.audio_problem(message)
            case ConnectFailed() | ControlClosed() | PeerVanished():
                self._lost(leg)
            case ConnectionStateChanged(state=state) if state in _LOST_STATES:
                self._lost(leg)

    def _opened(self, leg: _Leg) -> None:
        before = self._active
        others = {*self._legs.values()} - {leg, before}
        self._active = leg
        self._legs = {leg.peer_id: leg}
        for other in others:
            self._give_up(other)
        if before is not None and before is not leg:
            if before.peer.speech is not None and leg.peer.speech is not None:
                leg.peer.speech.take_over(before.peer.speech)
            self._replaced.add(before)
            self._spawn(self._retire(before), "close replaced peer")
        self._events.opened()

    def _lost(self, leg: _Leg) -> None:
        if leg is self._active:
            self._active = None
        newest = self._legs.get(leg.peer_id) is leg
        if newest:
            del self._legs[leg.peer_id]
        self._give_up(leg)
        if self._active is None:
            self._events.lost()
        if newest and leg.peer_id in self._present:
            self._spawn(self._offer_again(leg.peer_id), "offer again")

    async def _offer_again(self, peer_id: str) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), self._settings.reoffer_seconds)
        if not self._closing.is_set() and peer_id in self._present and peer_id not in self._legs:
            self._offer(peer_id)

    def _give_up(self, leg: _Leg) -> None:
        """Close a leg in the background; it says nothing more."""
        leg.over = True
        self._spawn(self._end(leg), "close peer")

    async def _retire(self, leg: _Leg) -> None:
        await leg.peer.flush(self._settings.flush_seconds)
        await self._end(leg)
        self._replaced.discard(leg)

    async def _end(self, leg: _Leg) -> bool:
        leg.over = True
        if leg.worker is not None:
            leg.worker.cancel()
        return await leg.peer.close()

    def _spawn(self, work: Coroutine[Any, Any, Any], what: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=f"{what} {self._session_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
