"""One term of coordinating: from getting the lease to losing it.

Of all session services one at a time gives sessions to runners and sees to those that are lost. All that must
outlive a term is in the database or said again by the runners; what is here may vanish at any moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import structlog

from voicethere.adapters.store.store import Store, StoreUnavailable
from voicethere.core.ports import Clock, RelayHub
from voicethere.core.tracing import NO_TRACER, Tracer
from voicethere.roles.background import Background
from voicethere.roles.sessions.hosted import HostedSessions
from voicethere.roles.sessions.hosting import Hosting
from voicethere.roles.sessions.outcomes import Outcomes
from voicethere.roles.sessions.patience import patiently
from voicethere.roles.sessions.provisioning import JobDone, Provisioner
from voicethere.roles.sessions.runners import LinkedRunners
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.roles.sessions.term import Term
from voicethere.roles.sessions.tokens import JoinTokens
from voicethere.roles.sessions.upkeep import Upkeep
from voicethere.wire.relay import CapacityNow, RunnerHello, SessionWanted, ToService
from voicethere.wire.session_api import FailureCode, ProvisioningStatus

_LOOK_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Coordinator:
    """Made for one term; `start` it, and `aclose` it when the lease is lost or given up."""

    def __init__(
        self,
        *,
        store: Store,
        hub: RelayHub,
        clock: Clock,
        settings: SessionServiceSettings,
        tokens: JoinTokens,
        outcomes: Outcomes,
        runner_silent: Callable[[str], None] | None = None,
        on_job: Callable[[JobDone], None] | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._outcomes = outcomes
        self._background = Background()
        self.hosted = HostedSessions()
        self.runners = LinkedRunners(now=clock.monotonic())
        term = Term(
            store=store,
            hub=hub,
            clock=clock,
            settings=settings,
            outcomes=outcomes,
            background=self._background,
            hosted=self.hosted,
            runners=self.runners,
        )
        self.provisioner = Provisioner(term, on_job=on_job, tracer=tracer)
        self.placement = self.provisioner.placement
        self.hosting = Hosting(term, provisioner=self.provisioner, tokens=tokens, runner_silent=runner_silent)
        self._upkeep = Upkeep(term, self.provisioner)
        self._restored = False
        self._early: deque[tuple[str, ToService | None]] = deque()
        self._looked_at = clock.monotonic()
        self._looking = False
        self._said: CapacityNow | None = None
        self._said_at = clock.monotonic()

    async def start(self) -> None:
        """Pick up what an earlier term left.

        Jobs begin anew, failed ones are queued (again), and ready sessions wait for their runner, which is
        asked to say hello.
        """
        unfinished = await patiently(self._store.unfinished_sessions)
        self.hosting.restore([record for record in unfinished if record.status is ProvisioningStatus.READY])
        for record in unfinished:
            if record.status is ProvisioningStatus.FAILED:
                code = record.failure_code or FailureCode.ORCHESTRATOR_ERROR
                await self._outcomes.job_failed(record, code, record.failure_message or "The job failed.")
            elif record.status is not ProvisioningStatus.READY:
                self.provisioner.submit(record)
        if unfinished:
            _log.info("sessions_picked_up", count=len(unfinished))
        self._restored = True
        while self._early:
            self._take(*self._early.popleft())
        await self._hub.call_roll()

    async def aclose(self) -> None:
        """Drop everything that is under way; the next term finds it in the database."""
        await self._background.aclose()

    # ------------------------------------------------------------------ what is heard

    def heard(self, runner_id: str, message: ToService | None) -> None:
        """One message of a runner; None: its link is gone."""
        if self._restored:
            self._take(runner_id, message)
        else:
            # Nothing is known yet of the sessions that it may speak of.
            self._early.append((runner_id, message))

    def _take(self, runner_id: str, message: ToService | None) -> None:
        if isinstance(message, RunnerHello):
            self._upkeep.runner_is_new(runner_id)
        self.hosting.heard(runner_id, message)

    def wanted(self, notice: SessionWanted) -> None:
        """A session was made somewhere."""
        if self._restored and self.placement.get(notice.session_id) is None:
            self._background.spawn(self._submit(notice.session_id), name=f"wanted {notice.session_id}")

    async def _submit(self, session_id: str) -> None:
        try:
            record = await self._store.get_session(session_id)
        except StoreUnavailable:
            return  # the next look finds it
        if record is not None and record.status is ProvisioningStatus.QUEUED and record.ended_at is None:
            self._upkeep.submit(record)

    # ------------------------------------------------------------------ what time does

    def tick(self) -> None:
        """Do what the clock says is due."""
        if not self._restored:
            return
        self.placement.tick()
        self.hosting.tick()
        now = self._clock.monotonic()
        if now - self._looked_at >= _LOOK_SECONDS and not self._looking:
            self._looked_at = now
            self._looking = True
            self._background.spawn(self._look(), name="upkeep")
        capacity = self.placement.capacity_now()
        if capacity != self._said or now - self._said_at >= _LOOK_SECONDS:
            self._said, self._said_at = capacity, now
            self._background.spawn(self._hub.publish(capacity), name="say capacity")

    async def _look(self) -> None:
        try:
            await self._upkeep.look()
        except StoreUnavailable as problem:
            _log.warning("upkeep_waits", problem=str(problem))
        finally:
            self._looking = False
