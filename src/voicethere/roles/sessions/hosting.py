"""Sessions that runners host: what runners say of them, and what becomes of them when a runner is lost.

The rules, all carried out here:
- A runner that says hello hosts what it lists. What it lists and is not ours (any more), it must let go of.
- A session that no linked runner lists is missing. Past a grace it has either ended (the database says so)
  or is lost: its clients are told, and its error is queued.
- There is no grace for a runner whose process is known to have ended, nor for one that was linked and said
  nothing for too long: its link is cut, and when it comes back it must let go of what it still hosts.
- A session that nobody joins is cancelled, without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from voicethere.adapters.store.store import SessionRecord, Store, StoreUnavailable
from voicethere.core.ports import Clock, RelayHub, RunnerAway
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.sessions.background import Background
from voicethere.roles.sessions.gateway import SignalingGateway
from voicethere.roles.sessions.outcomes import Outcomes
from voicethere.roles.sessions.provisioning import Provisioner, cancel_at_runner
from voicethere.roles.sessions.rooms import HostedSession, Room, Rooms
from voicethere.roles.sessions.runners import LinkedRunners
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.roles.sessions.silences import Silences
from voicethere.roles.sessions.tokens import JoinTokens
from voicethere.wire.relay import (
    Heartbeat,
    RoomClosed,
    RunnerHello,
    SessionAccepted,
    SessionRefused,
    SignalToPeer,
    TokenIssued,
    TokenWanted,
    ToService,
)
from voicethere.wire.session_api import Mode

_log = structlog.get_logger(__name__)


class Hosting:
    """Carries out what runners say. Nothing here waits: whatever takes time is spawned."""

    def __init__(
        self,
        *,
        store: Store,
        hub: RelayHub,
        clock: Clock,
        settings: SessionServiceSettings,
        rooms: Rooms,
        runners: LinkedRunners,
        provisioner: Provisioner,
        gateway: SignalingGateway,
        tokens: JoinTokens,
        outcomes: Outcomes,
        background: Background,
        runner_silent: Callable[[str], None] | None = None,
    ) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._settings = settings
        self._rooms = rooms
        self._runners = runners
        self._provisioner = provisioner
        self._placement = provisioner.placement
        self._gateway = gateway
        self._tokens = tokens
        self._outcomes = outcomes
        self._background = background
        self._runner_silent = runner_silent
        self._silences = Silences(limit_seconds=settings.silent_seconds)
        self._given_up: set[str] = set()

    def restore(self, sessions: Sequence[SessionRecord], modes: dict[str, Mode]) -> None:
        """After a restart: rooms for the sessions that were ready, missing until a runner lists them.

        `modes` is by project id.
        """
        now = self._clock.monotonic()
        for record in sessions:
            session = HostedSession(
                session_id=record.id,
                project_id=record.project_id,
                build_id=record.build_id,
                mode=modes.get(record.project_id, Mode.VOICE),
                runner_id=record.runner_id or "",
                customer_context=record.customer_context,
            )
            self._rooms.add(Room(session, opened_at=now, missing_since=now))

    # ------------------------------------------------------------------ what a runner says

    def heard(self, runner_id: str, message: ToService | None) -> None:
        """One message of a runner; None: its link is gone."""
        if message is not None:
            self._silences.heard(runner_id)
        match message:
            case None:
                self._link_lost(runner_id)
            case RunnerHello():
                self._hello(runner_id, message)
            case Heartbeat(active=active):
                self._runners.heartbeat(runner_id, active)
                self._placement.dispatch()
            case SessionAccepted(session_id=session_id):
                room = self._rooms.get(session_id)
                if room is None or room.session.runner_id != runner_id:
                    self._host_or_cancel(
                        runner_id, self._provisioner.accepted(runner_id, session_id), session_id
                    )
            case SessionRefused(session_id=session_id, failure_code=code, message=words):
                self._placement.refused(runner_id, session_id, code, words)
            case SignalToPeer(session_id=session_id, peer_id=peer_id, message=text):
                room = self._room_of(runner_id, session_id)
                if room is not None:
                    self._gateway.deliver(room, peer_id, text)
            case TokenWanted(session_id=session_id):
                room = self._room_of(runner_id, session_id)
                if room is not None:
                    self._background.spawn(self._issue_token(room), name=f"token {session_id}")
            case RoomClosed(session_id=session_id):
                room = self._room_of(runner_id, session_id)
                if room is not None:
                    self._over(room)

    def _hello(self, runner_id: str, hello: RunnerHello) -> None:
        _log.info("runner_linked", runner_id=runner_id, capacity=hello.capacity, sessions=len(hello.sessions))
        self._runners.linked(runner_id, capacity=hello.capacity, hosted=hello.sessions)
        listed = set(hello.sessions)
        for session_id in hello.sessions:
            room = self._rooms.get(session_id)
            if room is None:
                adopted = self._provisioner.adopt(runner_id, session_id)
                self._host_or_cancel(runner_id, adopted, session_id)
            elif room.session.runner_id == runner_id:
                room.missing_since = None
                self._background.spawn(self._gateway.runner_is_back(room), name=f"back {session_id}")
            else:
                self._host_or_cancel(runner_id, False, session_id)
        now = self._clock.monotonic()
        for room in self._rooms.of_runner(runner_id):
            if room.session.session_id not in listed and room.missing_since is None:
                room.missing_since = now  # its end was said while the link was away, or the runner is new
        self._placement.dispatch()

    def _link_lost(self, runner_id: str) -> None:
        _log.warning("runner_link_lost", runner_id=runner_id)
        now = self._clock.monotonic()
        self._silences.forget(runner_id)
        self._runners.gone(runner_id, now=now)
        for room in self._rooms.of_runner(runner_id):
            if room.missing_since is None:
                room.missing_since = now
        if runner_id in self._given_up:
            self._given_up.discard(runner_id)
            self._no_grace(runner_id)
        self._placement.runner_gone(runner_id)

    def runner_died(self, runner_id: str) -> None:
        """Its process has ended. What it had said before that is still read first."""
        if runner_id in self._runners:
            self._given_up.add(runner_id)  # until the end of its link
        else:
            self._no_grace(runner_id)

    def _no_grace(self, runner_id: str) -> None:
        """Its missing sessions are settled at the next tick."""
        over = self._clock.monotonic() - self._settings.relink_grace_seconds
        for room in self._rooms.of_runner(runner_id):
            if room.missing_since is not None:
                room.missing_since = min(room.missing_since, over)

    def _room_of(self, runner_id: str, session_id: str) -> Room | None:
        room = self._rooms.get(session_id)
        if room is None or room.session.runner_id != runner_id:
            self._gateway.ignore("not_hosted")
            return None
        return room

    def _host_or_cancel(self, runner_id: str, wanted: bool, session_id: str) -> None:
        if not wanted:
            self._runners.release(runner_id, session_id)
            self._background.spawn(
                cancel_at_runner(self._hub, runner_id, session_id), name=f"cancel {session_id}"
            )

    async def _issue_token(self, room: Room) -> None:
        session_id = room.session.session_id
        token = self._tokens.issue(session_id, room.room_id)
        answer = TokenIssued(
            session_id=session_id, token=token.token, expires_at=iso_from_epoch(token.expires_at)
        )
        try:
            await self._hub.send(room.session.runner_id, answer)
        except RunnerAway:
            _log.info("token_not_sent", session_id=session_id)  # it asks again once it is back

    def _over(self, room: Room) -> None:
        """The session has ended, and its runner has queued that."""
        session = room.session
        _log.info("session_over", session_id=session.session_id)
        self._gateway.close_room(room)
        self._runners.release(session.runner_id, session.session_id)
        self._placement.session_lasted(self._clock.monotonic() - room.opened_at)

    # ------------------------------------------------------------------ what time does

    def tick(self) -> None:
        """Cancel what nobody joined; see to what is missing, and to runners that say nothing."""
        now = self._clock.monotonic()
        for runner_id in self._silences.too_long(now):
            self._cut_off(runner_id)
        for room in self._rooms:
            if room.missing_since is not None:
                if now - room.missing_since >= self._settings.relink_grace_seconds and not room.settling:
                    room.settling = True
                    self._background.spawn(
                        self._settle_missing(room), name=f"missing {room.session.session_id}"
                    )
            elif room.cancelled_at is not None:
                if now - room.cancelled_at >= self._settings.cancel_seconds:
                    self._give_up_unclaimed(room)
            elif not room.claimed and now - room.opened_at >= self._settings.rules.unclaimed_seconds:
                room.cancelled_at = now
                session = room.session
                _log.info("session_unclaimed", session_id=session.session_id)
                self._background.spawn(
                    cancel_at_runner(self._hub, session.runner_id, session.session_id),
                    name=f"cancel {session.session_id}",
                )

    def _cut_off(self, runner_id: str) -> None:
        seconds = self._settings.silent_seconds
        _log.error("runner_silent", runner_id=runner_id, seconds=seconds)
        self._given_up.add(runner_id)
        self._hub.drop(runner_id)
        if self._runner_silent is not None:
            self._runner_silent(runner_id)

    def _give_up_unclaimed(self, room: Room) -> None:
        self._outcomes.unclaimed(room.session)
        self._over(room)

    async def _settle_missing(self, room: Room) -> None:
        """A session's runner is gone, or does not know it: find out whether it had ended, or is lost."""
        try:
            since = room.missing_since
            if since is None:
                return
            record = await self._store.get_session(room.session.session_id)
            if room.missing_since is None or self._rooms.get(room.session.session_id) is not room:
                return  # it is back, or over
            if record is None or record.ended_at is not None:
                self._over(room)
            elif room.cancelled_at is not None:
                self._give_up_unclaimed(room)
            elif await self._may_still_be_told(since):
                return  # the next tick looks again
            elif room.missing_since is not None and self._rooms.get(room.session.session_id) is room:
                await self.runner_lost(room)
        except StoreUnavailable as problem:
            _log.error("missing_session_unsettled", session_id=room.session.session_id, problem=str(problem))
        finally:
            room.settling = False

    async def _may_still_be_told(self, since: float) -> bool:
        """Whether the runner's last words, the session's real end among them, may still be in the queue."""
        waited = self._clock.monotonic() - since - self._settings.relink_grace_seconds
        return waited < self._settings.settle_seconds and await self._outcomes.words_in_the_queue()

    async def runner_lost(self, room: Room) -> None:
        """The session died with its runner: its clients are told by the gateway, and its error is queued."""
        record = await self._outcomes.runner_lost(room.session)
        self._gateway.close_room(room, error=record.envelope())
        self._runners.release(room.session.runner_id, room.session.session_id)
        self._placement.session_lasted(self._clock.monotonic() - room.opened_at)
