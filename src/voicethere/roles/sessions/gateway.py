"""The signaling gateway: who is in a room, and what its peers may say to each other.

Knows the messages of signaling.md, rooms and the relay. Does not know WebSockets (`signaling`), nor how a
session came to be hosted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog

from voicethere.core.ports import Clock, RelayHub, RunnerAway
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.roles.sessions.outbox import NORMAL_CLOSURE, POLICY_VIOLATION, SocketOutbox
from voicethere.roles.sessions.rooms import PeerSocket, Room, Rooms
from voicethere.roles.sessions.settings import SignalingLimits
from voicethere.roles.sessions.tokens import JoinTokens, TokenRefused
from voicethere.wire.relay import PeerJoinedRoom, PeerLeftRoom, SignalFromPeer
from voicethere.wire.signaling import (
    CLIENT_PEER_PREFIX,
    RUNNER_PEER_ID,
    Description,
    IceCandidate,
    Join,
    PeerJoined,
    PeerLeft,
    signaling_decoder,
)
from voicethere.wire.tagged import UndecodableMessage, encode_text

MAX_PEER_ID_CHARS = 128

_log = structlog.get_logger(__name__)


class RoomFull(Exception):
    """The room has as many sockets as it may have."""


class MessageRate:
    """A token bucket: `rate` messages a second, `burst` at once."""

    def __init__(self, clock: Clock, *, rate: float, burst: int) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = float(burst)
        self._left = float(burst)
        self._at = clock.monotonic()

    def allows(self) -> bool:
        """Count one message; False where it is one too many."""
        now = self._clock.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class SignalingGateway:
    """Lets sockets into rooms and carries messages between peers and the runner.

    `ignored` counts what was ignored, by reason, over all sockets: an operator sees junk there.
    """

    def __init__(
        self,
        *,
        rooms: Rooms,
        open_room: Callable[[str], Awaitable[Room | None]],
        claimed: Callable[[str], None],
        hub: RelayHub,
        tokens: JoinTokens,
        clock: Clock,
        limits: SignalingLimits,
    ) -> None:
        """`open_room` gives the room of a session id, None where the session is not hosted; `claimed` hears
        the id of a session whose first client has joined."""
        self._rooms = rooms
        self._open_room = open_room
        self._claimed = claimed
        self._hub = hub
        self._tokens = tokens
        self._clock = clock
        self.limits = limits
        self._ignored: Counter[str] = Counter()

    @property
    def ignored(self) -> Mapping[str, int]:
        """How many messages were ignored, by reason."""
        return self._ignored

    # ------------------------------------------------------------------ sockets

    async def admit(self, token: str) -> PeerSocket:
        """A socket, not joined yet, in the room that this token opens; `detach` it in any case.

        Raises:
            TokenRefused: the token is not good, or its session is not hosted (any more).
            RoomFull: the room has as many sockets as it may have.
            StoreUnavailable: the session has to be looked up, and the database is away.
        """
        claims = self._tokens.check(token)
        room = await self._open_room(claims.session_id)
        if room is None or room.room_id != claims.room_id:
            raise TokenRefused("the session is over, or was never hosted")
        if len(room.sockets) >= self.limits.sockets_per_room:
            raise RoomFull(room.room_id)
        outbox = SocketOutbox(most_messages=self.limits.outbox_messages, most_bytes=self.limits.outbox_bytes)
        socket = PeerSocket(room, outbox)
        room.sockets.add(socket)
        room.empty_since = None
        return socket

    def new_rate(self) -> MessageRate:
        """What a new socket may say."""
        return MessageRate(
            self._clock, rate=self.limits.messages_per_second, burst=self.limits.burst_messages
        )

    async def receive(self, socket: PeerSocket, text: str) -> None:
        """One text message of a socket: carried out, or ignored and counted."""
        if socket.outbox.closing:
            return
        try:
            message = signaling_decoder.decode(text)
        except UndecodableMessage:
            self.ignore("malformed")
            return
        if message is None:
            self.ignore("unknown_type")
        elif isinstance(message, Join):
            await self._join(socket, message)
        elif isinstance(message, Description | IceCandidate):
            await self._forward(socket, message, text)
        else:
            self.ignore("not_for_the_gateway")

    async def detach(self, socket: PeerSocket) -> None:
        """The socket is gone."""
        room, peer_id = socket.room, socket.peer_id
        room.sockets.discard(socket)
        if not room.sockets:
            room.empty_since = self._clock.monotonic()
        if not socket.current or peer_id is None:
            return  # it never joined, or a newer socket speaks for its peer
        del room.peers[peer_id]
        self._tell_others(room, peer_id, encode_text(PeerLeft(peer_id=peer_id)))
        if self._rooms.get(room.session_id) is room:
            await self._announce(room, peer_id, joined=False)

    def ignore(self, reason: str) -> None:
        """Count a message that was ignored."""
        self._ignored[reason] += 1

    async def _join(self, socket: PeerSocket, message: Join) -> None:
        room, peer_id = socket.room, message.peer_id
        if message.room != room.room_id:
            self.ignore("other_room")
            return
        if (
            peer_id == RUNNER_PEER_ID
            or not 0 < len(peer_id) <= MAX_PEER_ID_CHARS
            or not peer_id.isprintable()
        ):
            self.ignore("peer_id")
            return
        if socket.peer_id is not None and socket.peer_id != peer_id:
            self.ignore("second_identity")
            return
        earlier = room.peers.get(peer_id)
        socket.peer_id = peer_id
        room.peers[peer_id] = socket
        if earlier is not None and earlier is not socket:
            earlier.outbox.close(NORMAL_CLOSURE, "replaced by a newer socket of the same peer")
        if peer_id.startswith(CLIENT_PEER_PREFIX) and not room.claimed:
            room.claimed = True
            self._claimed(room.session_id)
        _log.info(
            "peer_joined", session_id=room.session.session_id, peer_id=peer_id, again=earlier is not None
        )
        if room.runner_present:
            socket.outbox.send(encode_text(PeerJoined(peer_id=RUNNER_PEER_ID)))
        for other in room.peers:
            if other != peer_id:
                socket.outbox.send(encode_text(PeerJoined(peer_id=other)))
        self._tell_others(room, peer_id, encode_text(PeerJoined(peer_id=peer_id)))
        await self._announce(room, peer_id, joined=True)

    async def _forward(self, socket: PeerSocket, message: Description | IceCandidate, text: str) -> None:
        room = socket.room
        if not socket.current:
            self.ignore("before_join" if socket.peer_id is None else "replaced")
        elif message.room != room.room_id:
            self.ignore("other_room")
        elif message.peer_id != socket.peer_id:
            self.ignore("other_peer_id")
        elif message.target_peer_id == RUNNER_PEER_ID:
            try:
                await self._hub.send(
                    room.session.runner_id,
                    SignalFromPeer(session_id=room.session.session_id, peer_id=message.peer_id, message=text),
                )
            except RunnerAway:
                self.ignore("runner_away")
        else:
            target = room.peers.get(message.target_peer_id)
            if target is None or target is socket:
                self.ignore("no_such_target")
            else:
                target.outbox.send(text)

    def _tell_others(self, room: Room, peer_id: str, text: str) -> None:
        for other, socket in room.peers.items():
            if other != peer_id:
                socket.outbox.send(text)

    async def _announce(self, room: Room, peer_id: str, *, joined: bool) -> None:
        session = room.session
        kind = PeerJoinedRoom if joined else PeerLeftRoom
        try:
            if not room.runner_present:
                raise RunnerAway(session.runner_id)
            await self._hub.send(session.runner_id, kind(session_id=session.session_id, peer_id=peer_id))
        except RunnerAway:
            room.unannounced[peer_id] = joined
        else:
            room.unannounced.pop(peer_id, None)

    # ------------------------------------------------------------------ the runner's side

    def deliver(self, room: Room, peer_id: str, text: str) -> None:
        """A message of the runner for one peer."""
        socket = room.peers.get(peer_id)
        if socket is None:
            self.ignore("no_such_target")
        else:
            socket.outbox.send(text)

    async def runner_is_back(self, room: Room) -> None:
        """The runner is linked (again): it hears of the peers that it missed, and they of it."""
        room.absent_since = None
        if not room.runner_present:
            room.runner_present = True
            for socket in room.peers.values():
                socket.outbox.send(encode_text(PeerJoined(peer_id=RUNNER_PEER_ID)))
        for peer_id, joined in list(room.unannounced.items()):
            await self._announce(room, peer_id, joined=joined)

    def close_room(self, room: Room, *, error: SessionErrorEnvelope | None = None) -> None:
        """The session is over: refuse its tokens, and close its sockets behind what is queued for them.

        `error` is for clients whom the runner can tell nothing any more; the runner's `peer-left` follows.
        """
        self._rooms.remove(room.session_id)
        if error is not None:
            envelope = msgspec.json.encode(error).decode()
            for socket in room.clients():
                socket.outbox.send(envelope)
            left = encode_text(PeerLeft(peer_id=RUNNER_PEER_ID))
            for socket in room.peers.values():
                socket.outbox.send(left)
        for socket in room.sockets:
            socket.outbox.close(NORMAL_CLOSURE, "the session is over")

    def close_all(self) -> None:
        """The service stops: sockets go, sessions stay (1012 tells a client to come back)."""
        for room in self._rooms:
            for socket in room.sockets:
                socket.outbox.close(1012, "the service restarts")

    def flooded(self, socket: PeerSocket, reason: str) -> None:
        """Close a socket that says too much."""
        self.ignore("flood")
        _log.warning(
            "signaling_flood",
            session_id=socket.room.session.session_id,
            peer_id=socket.peer_id,
            reason=reason,
        )
        socket.outbox.close(POLICY_VIOLATION, reason)
