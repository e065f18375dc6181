"""Rooms: the sessions that are hosted now, and the sockets of their peers.

A join token is good while its room is here. Knows no sockets' protocol, no relay and no database.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from voicethere.roles.sessions.outbox import SocketOutbox
from voicethere.wire.session_api import Mode
from voicethere.wire.signaling import CLIENT_PEER_PREFIX


def room_id_of(session_id: str) -> str:
    """A session's room. Derived, so that it survives a restart of the service."""
    return f"room-{session_id}"


class HostedSession(msgspec.Struct, frozen=True, kw_only=True):
    """What the service must remember of a session that a runner hosts."""

    session_id: str
    project_id: str
    build_id: str | None
    mode: Mode
    runner_id: str
    customer_context: dict[str, Any] | None = None


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
    """One hosted session's room. Times are in seconds of a clock that never jumps.

    `missing_since`: since when no linked runner says that it hosts the session. `unannounced`: what the
    runner could not be told while it was away, by peer id: True for a join, False for a leave.
    """

    def __init__(
        self, session: HostedSession, *, opened_at: float, missing_since: float | None = None
    ) -> None:
        self.session = session
        self.opened_at = opened_at
        self.missing_since = missing_since
        self.runner_present = missing_since is None
        self.claimed = False
        self.cancelled_at: float | None = None
        self.settling = False
        self.peers: dict[str, PeerSocket] = {}
        self.sockets: set[PeerSocket] = set()
        self.unannounced: dict[str, bool] = {}

    @property
    def room_id(self) -> str:
        return room_id_of(self.session.session_id)

    def clients(self) -> list[PeerSocket]:
        """The sockets of peers that the runner offers to."""
        return [socket for peer_id, socket in self.peers.items() if peer_id.startswith(CLIENT_PEER_PREFIX)]


class Rooms:
    """All rooms, by session id."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}

    def __iter__(self) -> Iterator[Room]:
        return iter(list(self._rooms.values()))

    def __len__(self) -> int:
        return len(self._rooms)

    def get(self, session_id: str) -> Room | None:
        """The session's room; None where it is not hosted (yet, or any more)."""
        return self._rooms.get(session_id)

    def of_runner(self, runner_id: str) -> list[Room]:
        """The rooms of the sessions that this runner hosts, or hosted last."""
        return [room for room in self._rooms.values() if room.session.runner_id == runner_id]

    def add(self, room: Room) -> Room:
        """Open a room."""
        self._rooms[room.session.session_id] = room
        return room

    def remove(self, session_id: str) -> Room | None:
        """Forget a room: from now on its tokens are refused."""
        return self._rooms.pop(session_id, None)
