"""Rooms: where the signaling sockets of one session meet, at this service.

Another service may have further sockets of the same session: all of them talk to the runner, which is in
every room. Knows no sockets' protocol, no relay and no database.
"""

from __future__ import annotations

from collections.abc import Iterator

from voicethere.roles.sessions.hosted import HostedSession, room_id_of
from voicethere.roles.sessions.outbox import SocketOutbox
from voicethere.wire.signaling import CLIENT_PEER_PREFIX


class PeerSocket:
    """One signaling socket of a room; `peer_id` is None until it has joined."""

    def __init__(self, room: Room, outbox: SocketOutbox) -> None:
        self.room = room
        self.outbox = outbox
        self.peer_id: str | None = None

    @property
    def current(self) -> bool:
        """Whether this socket speaks for its peer id (it does not once a newer one has joined with it)."""
        return self.peer_id is not None and self.room.peers.get(self.peer_id) is self


class Room:
    """One session's room. Times are in seconds of a clock that never jumps.

    `runner_present`: whether its runner has been here, so that peers are told of it (they are not told of a
    link that is lost for a moment). `absent_since`: since when the runner is not linked, or does not list the
    session; None while it is here.
    `unannounced`: what the runner could not be told while it was away, by peer id: True for a join, False
    for a leave. `empty_since`: since when it has no socket.
    """

    def __init__(self, session: HostedSession, *, now: float, runner_present: bool) -> None:
        self.session = session
        self.runner_present = runner_present
        self.absent_since: float | None = None if runner_present else now
        self.looked_at: float = now
        self.looking = False
        self.claimed = False
        self.empty_since: float | None = now
        self.peers: dict[str, PeerSocket] = {}
        self.sockets: set[PeerSocket] = set()
        self.unannounced: dict[str, bool] = {}

    @property
    def session_id(self) -> str:
        return self.session.session_id

    @property
    def room_id(self) -> str:
        return room_id_of(self.session.session_id)

    def clients(self) -> list[PeerSocket]:
        """The sockets of peers that the runner offers to."""
        return [socket for peer_id, socket in self.peers.items() if peer_id.startswith(CLIENT_PEER_PREFIX)]


class Rooms:
    """The rooms of this service, by session id."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}

    def __iter__(self) -> Iterator[Room]:
        return iter(list(self._rooms.values()))

    def __len__(self) -> int:
        return len(self._rooms)

    def get(self, session_id: str) -> Room | None:
        """The session's room; None where nobody has a socket of it here."""
        return self._rooms.get(session_id)

    def of_runner(self, runner_id: str) -> list[Room]:
        """The rooms of the sessions that this runner hosts."""
        return [room for room in self._rooms.values() if room.session.runner_id == runner_id]

    def add(self, room: Room) -> Room:
        """Open a room."""
        self._rooms[room.session_id] = room
        return room

    def remove(self, session_id: str) -> Room | None:
        """Close a room."""
        return self._rooms.pop(session_id, None)
