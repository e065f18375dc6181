"""What whoever coordinates sees to every second: deploys in `force` mode, warm children, places in the line.

All of it is read from the database, because any control plane may have written it.
"""

from __future__ import annotations

import structlog

from voicethere.adapters.store.store import SessionRecord
from voicethere.core.ports import RunnerAway
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.sessions.hosted import Hosted
from voicethere.roles.sessions.provisioning import Provisioner
from voicethere.roles.sessions.term import Term
from voicethere.wire.control_channel import EndReason
from voicethere.wire.control_plane import Deployment, DeploymentStatus
from voicethere.wire.relay import DeployedAgent, EndSession, KeepWarm

_log = structlog.get_logger(__name__)


class Upkeep:
    """`look` does it all once."""

    def __init__(self, term: Term, provisioner: Provisioner) -> None:
        self._store = term.store
        self._hub = term.hub
        self._clock = term.clock
        self._settings = term.settings
        self._hosted = term.hosted
        self._runners = term.runners
        self._provisioner = provisioner
        self._forced_since: dict[str, float] = {}
        self._warm: dict[str, list[DeployedAgent]] = {}

    async def look(self) -> None:
        """Raises StoreUnavailable where the database cannot be asked now; the next look makes up for it."""
        for record in await self._store.queued_sessions():
            self.submit(record)
        await self._expire_places()
        for job in await self._store.active_deployments():
            await self._force(job)
        await self._keep_warm()

    def submit(self, record: SessionRecord) -> None:
        """Provision it, unless that is under way or done."""
        if self._hosted.get(record.id) is None:
            self._provisioner.submit(record)

    async def _expire_places(self) -> None:
        before = iso_from_epoch(self._clock.now() - self._settings.rules.wait_seconds)
        for session_id in await self._store.expired_waiters(before):
            self._provisioner.placement.expire(session_id)

    # ------------------------------------------------------------------ deploys in force mode

    async def _force(self, deployment: Deployment) -> None:
        """End the project's sessions that run something older; the deploy is completed once none is left."""
        now = self._clock.monotonic()
        since = self._forced_since.setdefault(deployment.id, now)
        current = await self._store.deployed_agent(deployment.project_id)
        older = [
            hosted
            for hosted in self._hosted.of_project(deployment.project_id)
            if _is_older(hosted, current, deployment)
        ]
        for hosted in older:
            if not hosted.told_to_end:
                await self._end(hosted)
        under_way = any(
            job.record.project_id == deployment.project_id and job.agent is not None and job.agent != current
            for job in self._provisioner.placement.jobs
        )
        overdue = now - since >= self._settings.force_seconds
        if overdue and older:
            _log.error("deploy_left_sessions", deployment_id=deployment.id, sessions=len(older))
        if overdue or not (older or under_way):
            await self._store.finish_deployment(
                deployment.id, status=DeploymentStatus.COMPLETED, error=None, agent=None
            )
            del self._forced_since[deployment.id]
            _log.info("deploy_forced", deployment_id=deployment.id, project_id=deployment.project_id)

    async def _end(self, hosted: Hosted) -> None:
        try:
            await self._hub.send(
                hosted.runner_id,
                EndSession(session_id=hosted.session_id, end_reason=EndReason.RUNNER_SHUTDOWN),
            )
        except RunnerAway:
            return  # once it is back, or lost with its runner
        hosted.told_to_end = True
        _log.info("session_forced_to_end", session_id=hosted.session_id)

    # ------------------------------------------------------------------ warm children

    async def _keep_warm(self) -> None:
        """Tell each runner what to keep warm, where that has changed or the runner is new."""
        agents = await self._store.warm_agents()
        told = {runner_id: self._warm.get(runner_id, []) for runner_id in self._runners}
        self._warm = told
        for runner_id in told:
            if told[runner_id] == agents:
                continue
            try:
                await self._hub.send(runner_id, KeepWarm(agents=agents))
            except RunnerAway:
                continue
            except ValueError as error:
                _log.error("warm_list_not_sent", runner_id=runner_id, problem=str(error))
            self._warm[runner_id] = agents

    def runner_is_new(self, runner_id: str) -> None:
        """It has said hello: it may have been started again, and know nothing."""
        self._warm.pop(runner_id, None)


def _is_older(hosted: Hosted, current: DeployedAgent | None, deployment: Deployment) -> bool:
    """Whether the session runs something else than what is deployed now.

    Of a session that another coordinator assigned it is only known when it became ready.
    """
    if hosted.agent is not None:
        return hosted.agent != current
    return hosted.ready_at is None or hosted.ready_at <= deployment.created_at
