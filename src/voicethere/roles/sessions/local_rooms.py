"""The rooms of this service's sockets: opened when the first one comes, closed when the session is over.

A room is made from what the database says of its session, so that a client may come to any service. That a
session is over is heard from its runner or from the coordinator; where that was missed, the database tells.
"""

from __future__ import annotations

from collections import OrderedDict

import structlog

from voicethere.adapters.store.store import SessionRecord, Store, StoreUnavailable
from voicethere.core.ports import Clock
from voicethere.roles.background import Background
from voicethere.roles.sessions.endings import ended_notice
from voicethere.roles.sessions.gateway import SignalingGateway
from voicethere.roles.sessions.hosted import hosted_session
from voicethere.roles.sessions.presence import RunnerPresence
from voicethere.roles.sessions.rooms import Room, Rooms
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.wire.relay import (
    RoomClosed,
    RunnerHello,
    SessionAccepted,
    SessionOver,
    SignalToPeer,
    ToService,
)
from voicethere.wire.session_api import ProvisioningStatus

_REMEMBERED_ENDS = 10_000

_log = structlog.get_logger(__name__)


class LocalRooms:
    """Everything that happens to the rooms of one service."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        settings: SessionServiceSettings,
        rooms: Rooms,
        gateway: SignalingGateway,
        background: Background,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._rooms = rooms
        self._gateway = gateway
        self._background = background
        self._presence = RunnerPresence()
        self._over: OrderedDict[str, str | None] = OrderedDict()

    async def open(self, session_id: str) -> Room | None:
        """The session's room; None where it is not ready, or over, or a conversation: that has none.

        Raises:
            StoreUnavailable: the database has to be asked, and is away.
        """
        room = self._rooms.get(session_id)
        if room is not None:
            return room
        record = await self._store.get_session(session_id)
        if record is None or record.ended_at is not None or record.status is not ProvisioningStatus.READY:
            return None
        if record.conversation_id is not None:
            return None
        if self._is_over(record):
            return None  # the database has yet to hear of it
        opened = self._rooms.get(session_id)
        if opened is not None:
            return opened  # another socket was as fast
        session = hosted_session(record)
        present = self._presence.hosts(session.runner_id, session_id)
        new = Room(session, now=self._clock.monotonic(), runner_present=present)
        new.claimed = record.joined_at is not None
        return self._rooms.add(new)

    def _is_over(self, record: SessionRecord) -> bool:
        """Whether its end was heard here: from the runner that hosts it, or from the coordinator."""
        return record.id in self._over and self._over[record.id] in (None, record.runner_id)

    # ------------------------------------------------------------------ what is heard

    def heard(self, runner_id: str, message: ToService | None) -> None:
        """One message of a runner; None: its link is gone."""
        self._presence.heard(runner_id, message)
        match message:
            case None:
                now = self._clock.monotonic()
                for room in self._rooms.of_runner(runner_id):
                    if room.absent_since is None:
                        room.absent_since = now
            case RunnerHello(sessions=sessions):
                self._hello(runner_id, set(sessions))
            case SessionAccepted(session_id=session_id):
                accepted = self._rooms.get(session_id)
                if accepted is not None and accepted.session.runner_id == runner_id:
                    self._is_back(accepted)
            case SignalToPeer(session_id=session_id, peer_id=peer_id, message=text):
                target = self._rooms.get(session_id)
                if target is None or target.session.runner_id != runner_id:
                    self._gateway.ignore("not_hosted")
                else:
                    self._gateway.deliver(target, peer_id, text)
            case RoomClosed(session_id=session_id):
                self._closed(session_id, runner_id)
            case _:
                pass  # for the coordinator

    def _hello(self, runner_id: str, listed: set[str]) -> None:
        now = self._clock.monotonic()
        for room in self._rooms.of_runner(runner_id):
            if room.session_id in listed:
                self._is_back(room)
            elif room.absent_since is None:
                room.absent_since = now

    def _is_back(self, room: Room) -> None:
        self._background.spawn(self._gateway.runner_is_back(room), name=f"back {room.session_id}")

    def _closed(self, session_id: str, runner_id: str) -> None:
        room = self._rooms.get(session_id)
        if room is not None and room.session.runner_id != runner_id:
            return  # it let go of what another one hosts
        self._remember(session_id, runner_id)
        if room is not None:
            self._gateway.close_room(room)

    def over(self, notice: SessionOver) -> None:
        """The coordinator says so."""
        self._remember(notice.session_id, None)
        room = self._rooms.get(notice.session_id)
        if room is not None:
            self._gateway.close_room(room, error=notice.error)

    def _remember(self, session_id: str, said_by: str | None) -> None:
        self._over[session_id] = said_by
        if len(self._over) > _REMEMBERED_ENDS:
            self._over.popitem(last=False)

    # ------------------------------------------------------------------ what time does

    def tick(self) -> None:
        """Forget rooms without sockets; ask about those whose runner has been away for a while."""
        now = self._clock.monotonic()
        for room in self._rooms:
            if (
                room.empty_since is not None
                and not room.unannounced
                and now - room.empty_since >= self._settings.reload_seconds
            ):
                self._rooms.remove(room.session_id)
            elif (
                room.absent_since is not None
                and now - room.absent_since >= self._settings.relink_grace_seconds
                and now - room.looked_at >= self._settings.reload_seconds
                and not room.looking
            ):
                room.looked_at = now
                room.looking = True
                self._background.spawn(self._compare(room), name=f"compare {room.session_id}")

    async def _compare(self, room: Room) -> None:
        """The notice of its end may have been lost: what the database says is so."""
        try:
            record = await self._store.get_session(room.session_id)
            if record is not None and record.ended_at is None:
                if record.runner_id is not None and record.runner_id != room.session.runner_id:
                    room.session = hosted_session(record)
                return
            notice = await ended_notice(self._store, room.session_id, record)
            if self._rooms.get(room.session_id) is room:
                self.over(notice)
        except StoreUnavailable as problem:
            _log.warning("room_not_compared", session_id=room.session_id, problem=str(problem))
        finally:
            room.looking = False
