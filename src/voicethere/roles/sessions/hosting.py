"""Sessions that runners host: what runners say of them, and what becomes of them when a runner is lost.

The rules, all carried out by whoever coordinates:
- A runner that says hello hosts what it lists. What it lists and is not ours (any more), it must let go of.
- A session that no linked runner lists is missing. Past a grace it has either ended (the database says so)
  or is lost: every service is told, for the clients that have a socket there, and its error is queued.
- There is no grace for a runner whose process is known to have ended, nor for one that was linked and said
  nothing for too long: its link is cut, and when it comes back it must let go of what it still hosts.
- Nobody is blamed for a silence while the relay itself is away.
- A session that nobody joins is cancelled, without an error; a conversation has nobody who would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from voicethere.adapters.store.store import SessionRecord, StoreUnavailable
from voicethere.core.ports import RunnerAway
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.sessions.endings import ended_notice
from voicethere.roles.sessions.hosted import Hosted, hosted_session, room_id_of
from voicethere.roles.sessions.provisioning import Provisioner, cancel_at_runner
from voicethere.roles.sessions.silences import Silences
from voicethere.roles.sessions.term import Term
from voicethere.roles.sessions.tokens import JoinTokens
from voicethere.wire.relay import (
    Heartbeat,
    RoomClosed,
    RunnerHello,
    SessionAccepted,
    SessionOver,
    SessionRefused,
    TokenIssued,
    TokenWanted,
    ToService,
)

_log = structlog.get_logger(__name__)


class Hosting:
    """Carries out what runners say. Nothing here waits: whatever takes time is spawned."""

    def __init__(
        self,
        term: Term,
        *,
        provisioner: Provisioner,
        tokens: JoinTokens,
        runner_silent: Callable[[str], None] | None = None,
    ) -> None:
        self._store = term.store
        self._hub = term.hub
        self._clock = term.clock
        self._settings = term.settings
        self._hosted = term.hosted
        self._runners = term.runners
        self._outcomes = term.outcomes
        self._background = term.background
        self._provisioner = provisioner
        self._placement = provisioner.placement
        self._tokens = tokens
        self._runner_silent = runner_silent
        self._silences = Silences(limit_seconds=term.settings.silent_seconds)
        self._given_up: set[str] = set()

    def restore(self, sessions: Sequence[SessionRecord]) -> None:
        """What an earlier coordinator left: sessions that are ready, missing until a runner lists them."""
        now = self._clock.monotonic()
        for record in sessions:
            self._hosted.add(
                Hosted(
                    hosted_session(record),
                    opened_at=now,
                    missing_since=now,
                    claimed=record.joined_at is not None or record.conversation_id is not None,
                    ready_at=record.completed_at,
                )
            )

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
            case Heartbeat(active=active, draining=draining):
                self._runners.heartbeat(runner_id, active, draining=draining)
                self._placement.dispatch()
            case SessionAccepted(session_id=session_id):
                hosted = self._hosted.get(session_id)
                if hosted is None or hosted.runner_id != runner_id:
                    self._host_or_cancel(
                        runner_id, self._provisioner.adopt(runner_id, session_id), session_id
                    )
            case SessionRefused(session_id=session_id, failure_code=code, message=words):
                self._placement.refused(runner_id, session_id, code, words)
            case TokenWanted(session_id=session_id):
                hosted = self._of(runner_id, session_id)
                if hosted is not None:
                    self._background.spawn(self._issue_token(hosted), name=f"token {session_id}")
            case RoomClosed(session_id=session_id):
                hosted = self._of(runner_id, session_id)
                if hosted is not None:
                    self._over(hosted)
            case _:
                pass  # signals are for those who have the sockets

    def _hello(self, runner_id: str, hello: RunnerHello) -> None:
        _log.info("runner_linked", runner_id=runner_id, capacity=hello.capacity, sessions=len(hello.sessions))
        self._runners.linked(
            runner_id, capacity=hello.capacity, hosted=hello.sessions, draining=hello.draining
        )
        listed = set(hello.sessions)
        for session_id in hello.sessions:
            hosted = self._hosted.get(session_id)
            if hosted is None:
                adopted = self._provisioner.adopt(runner_id, session_id)
                self._host_or_cancel(runner_id, adopted, session_id)
            elif hosted.runner_id == runner_id:
                hosted.missing_since = None
            else:
                self._host_or_cancel(runner_id, False, session_id)
        self._placement.not_listed(runner_id, listed)
        now = self._clock.monotonic()
        for hosted in self._hosted.of_runner(runner_id):
            if hosted.session_id not in listed and hosted.missing_since is None:
                hosted.missing_since = now  # its end was said while the link was away, or the runner is new
        self._placement.dispatch()

    def _link_lost(self, runner_id: str) -> None:
        _log.warning("runner_link_lost", runner_id=runner_id)
        now = self._clock.monotonic()
        self._silences.forget(runner_id)
        self._runners.gone(runner_id, now=now)
        for hosted in self._hosted.of_runner(runner_id):
            if hosted.missing_since is None:
                hosted.missing_since = now
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
        for hosted in self._hosted.of_runner(runner_id):
            if hosted.missing_since is not None:
                hosted.missing_since = min(hosted.missing_since, over)

    def _of(self, runner_id: str, session_id: str) -> Hosted | None:
        hosted = self._hosted.get(session_id)
        return hosted if hosted is not None and hosted.runner_id == runner_id else None

    def _host_or_cancel(self, runner_id: str, wanted: bool, session_id: str) -> None:
        if not wanted:
            self._runners.release(runner_id, session_id)
            self._background.spawn(
                cancel_at_runner(self._hub, runner_id, session_id), name=f"cancel {session_id}"
            )

    async def _issue_token(self, hosted: Hosted) -> None:
        token = self._tokens.issue(hosted.session_id, room_id_of(hosted.session_id))
        answer = TokenIssued(
            session_id=hosted.session_id, token=token.token, expires_at=iso_from_epoch(token.expires_at)
        )
        try:
            await self._hub.send(hosted.runner_id, answer)
        except RunnerAway:
            _log.info("token_not_sent", session_id=hosted.session_id)  # it asks again once it is back

    def _over(self, hosted: Hosted) -> None:
        """The session has ended."""
        _log.info("session_over", session_id=hosted.session_id)
        self._hosted.remove(hosted.session_id)
        self._runners.release(hosted.runner_id, hosted.session_id)
        self._placement.session_lasted(self._clock.monotonic() - hosted.opened_at)

    async def _over_everywhere(self, hosted: Hosted, notice: SessionOver) -> None:
        """The same, where its runner has told nobody."""
        self._over(hosted)
        await self._hub.publish(notice)

    # ------------------------------------------------------------------ what time does

    def tick(self) -> None:
        """Cancel what nobody joined; see to what is missing, and to runners that say nothing."""
        now = self._clock.monotonic()
        if not self._hub.linked:
            self._silences.excuse()
        for runner_id in self._silences.too_long(now):
            self._cut_off(runner_id)
        for hosted in self._hosted:
            if hosted.missing_since is not None:
                if now - hosted.missing_since >= self._settings.relink_grace_seconds and not hosted.settling:
                    hosted.settling = True
                    self._background.spawn(self._settle_missing(hosted), name=f"missing {hosted.session_id}")
            elif hosted.cancelled_at is not None:
                if now - hosted.cancelled_at >= self._settings.cancel_seconds:
                    self._background.spawn(
                        self._give_up_unclaimed(hosted), name=f"unclaimed {hosted.session_id}"
                    )
            elif (
                not hosted.claimed
                and not hosted.looking_at_claim
                and now - hosted.opened_at >= self._settings.rules.unclaimed_seconds
            ):
                hosted.looking_at_claim = True
                self._background.spawn(self._cancel_unclaimed(hosted), name=f"claim {hosted.session_id}")

    def _cut_off(self, runner_id: str) -> None:
        seconds = self._settings.silent_seconds
        _log.error("runner_silent", runner_id=runner_id, seconds=seconds)
        self._given_up.add(runner_id)
        self._hub.drop(runner_id)
        if self._runner_silent is not None:
            self._runner_silent(runner_id)

    async def _cancel_unclaimed(self, hosted: Hosted) -> None:
        """Whether somebody joined is for the database to say: the socket may have been at any service."""
        try:
            record = await self._store.get_session(hosted.session_id)
            if self._hosted.get(hosted.session_id) is not hosted:
                return
            hosted.claimed = record is not None and record.joined_at is not None
            if not hosted.claimed:
                hosted.cancelled_at = self._clock.monotonic()
                _log.info("session_unclaimed", session_id=hosted.session_id)
                await cancel_at_runner(self._hub, hosted.runner_id, hosted.session_id)
        except StoreUnavailable as problem:
            _log.error("claim_unknown", session_id=hosted.session_id, problem=str(problem))
        finally:
            hosted.looking_at_claim = False

    async def _give_up_unclaimed(self, hosted: Hosted) -> None:
        if self._hosted.get(hosted.session_id) is hosted:
            self._outcomes.unclaimed(hosted.session)
            await self._over_everywhere(hosted, SessionOver(session_id=hosted.session_id))

    async def _settle_missing(self, hosted: Hosted) -> None:
        """A session's runner is gone, or does not know it: find out whether it had ended, or is lost."""
        try:
            since = hosted.missing_since
            if since is None:
                return
            record = await self._store.get_session(hosted.session_id)
            if hosted.missing_since is None or self._hosted.get(hosted.session_id) is not hosted:
                return  # it is back, or over
            if record is None or record.ended_at is not None:
                # Its runner may have died between its last words and telling the client.
                notice = await ended_notice(self._store, hosted.session_id, record)
                await self._over_everywhere(hosted, notice)
            elif hosted.cancelled_at is not None:
                await self._give_up_unclaimed(hosted)
            elif await self._may_still_be_told(since):
                return  # the next tick looks again
            elif hosted.missing_since is not None and self._hosted.get(hosted.session_id) is hosted:
                await self._lost(hosted)
        except StoreUnavailable as problem:
            _log.error("missing_session_unsettled", session_id=hosted.session_id, problem=str(problem))
        finally:
            hosted.settling = False

    async def _may_still_be_told(self, since: float) -> bool:
        """Whether the runner's last words, the session's real end among them, may still be in the queue."""
        missing = self._clock.monotonic() - since
        if missing - self._settings.relink_grace_seconds >= self._settings.settle_seconds:
            return False
        return await self._outcomes.words_in_the_queue(missing_seconds=missing)

    async def _lost(self, hosted: Hosted) -> None:
        """The session died with its runner: its clients are told by the gateways, and its error is queued."""
        record = await self._outcomes.runner_lost(hosted.session)
        await self._over_everywhere(
            hosted, SessionOver(session_id=hosted.session_id, error=record.envelope())
        )
        # It may have come back in this very moment: what its clients were told must be so.
        await cancel_at_runner(self._hub, hosted.runner_id, hosted.session_id)
