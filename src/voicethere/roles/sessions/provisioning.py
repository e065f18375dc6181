"""Takes sessions from `queued` to `ready` or `failed`: carries out what is decided.

Each job is one task that reads its news in order, so that what the database says of it goes one way only.
The news come from `placement`, where all decisions are taken.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from voicethere.adapters.store.store import SessionRecord
from voicethere.core.ports import RelayHub, RunnerAway
from voicethere.core.provisioning import Assign, Fail, Wait
from voicethere.core.tracing import NO_TRACER, Tracer
from voicethere.roles.sessions.hosted import Hosted, HostedSession, room_id_of
from voicethere.roles.sessions.jobs import Accepted, Job, Refused, RunnerWent, Stage, TimedOut
from voicethere.roles.sessions.patience import patiently
from voicethere.roles.sessions.placement import Placement
from voicethere.roles.sessions.term import Term
from voicethere.wire.relay import AssignSession, CancelSession, DeployedAgent, SessionMoved
from voicethere.wire.session_api import FailureCode, Mode, ProvisioningStatus

_MOST_LOST_RUNNERS = 3

_log = structlog.get_logger(__name__)


class JobDone(msgspec.Struct, frozen=True):
    """A job that came to something: `failure` is None where the session is ready (or its project is gone).
    `seconds` is from the moment at which this service took it up, waiting included."""

    seconds: float
    failure: FailureCode | None


class Provisioner:
    """Runs the jobs; `on_job` hears of each job that is done."""

    def __init__(
        self,
        term: Term,
        *,
        on_job: Callable[[JobDone], None] | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._on_job = on_job
        self._tracer = tracer
        self._store = term.store
        self._hub = term.hub
        self._clock = term.clock
        self._settings = term.settings
        self._hosted = term.hosted
        self._runners = term.runners
        self._outcomes = term.outcomes
        self._background = term.background
        self.placement = Placement(clock=term.clock, rules=term.settings.rules, runners=term.runners)

    def submit(self, record: SessionRecord) -> None:
        """Start a job for this session; at most one at a time."""
        if self.placement.get(record.id) is not None:
            return
        job = Job(record, requested_at=self._clock.monotonic())
        self.placement.add(job)
        self._background.spawn(self._run(job), name=f"provision {record.id}")

    # ------------------------------------------------------------------ news from the relay

    def accepted(self, runner_id: str, session_id: str) -> bool:
        """A runner hosts the session. False where no job gave it to this runner: it must let go of it."""
        job = self.placement.accepted(runner_id, session_id)
        if job is None or job.agent is None:
            return False
        self._open(job, job.agent, runner_id)
        return True

    def adopt(self, runner_id: str, session_id: str) -> bool:
        """The same for a session that a runner hosts although this coordinator did not give it to it."""
        return self.accepted(runner_id, session_id) or self.placement.adopted(runner_id, session_id)

    # ------------------------------------------------------------------ one job

    async def _run(self, job: Job) -> None:
        structlog.contextvars.bind_contextvars(session_id=job.record.id)
        with self._tracer.span("provision session", voicethere__session_id=job.record.id) as span:
            try:
                try:
                    failure = await self._provision(job)
                except Exception as error:
                    _log.exception("provisioning_broke")
                    words = f"The session service failed ({type(error).__name__}); its log says more."
                    failure = Fail(FailureCode.ORCHESTRATOR_ERROR, words)
                if failure is not None:
                    span.set(voicethere__failure_code=failure.code.value)
                    self._let_go(job)
                    await self._fail(job, failure)
            finally:
                self.placement.remove(job)
        if self._on_job is not None:
            seconds = self._clock.monotonic() - job.requested_at
            self._on_job(JobDone(seconds, None if failure is None else failure.code))
        await self._hub.publish(SessionMoved(session_id=job.record.id, settled=True))

    async def _provision(self, job: Job) -> Fail | None:
        """None once the session is ready (or its project is gone); the failure otherwise."""
        if await self._agent(job) is None and job.stage is Stage.PREPARING:
            return _not_deployed(job)
        if job.stage is Stage.PREPARING:
            job.stage = Stage.LOOKING
        while True:
            self.placement.dispatch()
            match await job.news.get():
                case Wait():
                    await patiently(
                        lambda: self._store.update_session(job.record.id, status=ProvisioningStatus.WAITING)
                    )
                    await self._hub.publish(SessionMoved(session_id=job.record.id, settled=False))
                case Assign(runner_id):
                    failure = await self._assign(job, runner_id)
                    if failure is not None:
                        return failure
                case Accepted(runner_id):
                    await self._ready(job, runner_id)
                    return None
                case Refused(code, message):
                    failure = self._try_another(job, code, message)
                    if failure is not None:
                        return failure
                case RunnerWent():
                    failure = self._runner_went(job)
                    if failure is not None:
                        return failure
                case TimedOut():
                    self._cancel(job)
                    seconds = self._settings.rules.accept_seconds
                    return Fail(
                        FailureCode.TIMEOUT, f"The runner did not accept the session within {seconds:g} s."
                    )
                case Fail() as failure:
                    return failure

    async def _assign(self, job: Job, runner_id: str) -> Fail | None:
        """Ask the runner to host the session; its answer comes as news."""
        agent = await self._agent(job)
        if agent is None:
            return _not_deployed(job)
        job.agent = agent
        await patiently(
            lambda: self._store.update_session(
                job.record.id,
                status=ProvisioningStatus.PROVISIONING,
                build_id=agent.build_id,
                runner_id=runner_id,
                mode=_mode_of(job, agent),
            )
        )
        if job.stage is not Stage.ASSIGNED:
            return None  # it timed out, or the runner went, while the database was busy
        try:
            await self._hub.send(
                runner_id,
                AssignSession(
                    session_id=job.record.id,
                    room_id=room_id_of(job.record.id),
                    agent=msgspec.structs.replace(agent, mode=_mode_of(job, agent)),
                    ice_servers=self._settings.ice_servers,
                    customer_context=job.record.customer_context,
                    chat=job.record.conversation_id is not None,
                ),
            )
        except RunnerAway:
            self._runners.gone(runner_id, now=self._clock.monotonic())
            if job.stage is Stage.ASSIGNED:
                return self._runner_went(job)
        except ValueError as error:
            return Fail(FailureCode.ORCHESTRATOR_ERROR, f"The assignment cannot be sent: {error}.")
        return None

    async def _ready(self, job: Job, runner_id: str) -> None:
        agent = job.agent or await self._agent(job)
        if job.agent is None:  # adopted: what it runs was frozen by another coordinator
            self._open(job, None, runner_id)
        await patiently(
            lambda: self._store.update_session(
                job.record.id,
                status=ProvisioningStatus.READY,
                build_id=None if agent is None else agent.build_id,
                runner_id=runner_id,
                mode=None if agent is None else _mode_of(job, agent),
            )
        )
        _log.info("session_ready", session_id=job.record.id, runner_id=runner_id)

    def _open(self, job: Job, agent: DeployedAgent | None, runner_id: str) -> None:
        """A runner hosts it: noted before anything else can happen."""
        record = job.record
        mode = record.mode if agent is None else _mode_of(job, agent)
        session = HostedSession(
            session_id=record.id,
            project_id=record.project_id,
            build_id=record.build_id if agent is None else agent.build_id,
            mode=Mode.VOICE if mode is None else mode,
            runner_id=runner_id,
            customer_context=record.customer_context,
        )
        now = self._clock.monotonic()
        # Whoever began a conversation does not have to join it, too.
        self._hosted.add(
            Hosted(session, opened_at=now, agent=agent, claimed=record.conversation_id is not None)
        )

    def _try_another(self, job: Job, code: FailureCode, message: str) -> Fail | None:
        """After a refusal: where it may be better elsewhere, or later, look again."""
        runner_id = job.runner_id
        assert runner_id is not None
        _log.warning("runner_refused", session_id=job.record.id, runner_id=runner_id, failure_code=code.value)
        self._let_go(job)
        if code is FailureCode.CAPACITY_EXCEEDED:
            self._runners.full(runner_id)
        elif code is FailureCode.RUNNER_UNAVAILABLE:
            job.refused_by.add(runner_id)
            job.refusal = (code, message)
        else:
            return Fail(code, message)
        job.stage = Stage.LOOKING
        return None

    def _runner_went(self, job: Job) -> Fail | None:
        self._let_go(job)
        job.lost_runners += 1
        if job.lost_runners >= _MOST_LOST_RUNNERS:
            return Fail(
                FailureCode.RUNNER_UNAVAILABLE,
                f"{_MOST_LOST_RUNNERS} runners in a row were lost while they took the session.",
            )
        job.stage = Stage.LOOKING
        return None

    def _let_go(self, job: Job) -> None:
        if job.runner_id is not None:
            self._runners.release(job.runner_id, job.record.id)
            job.runner_id = None
        job.accept_deadline = None

    def _cancel(self, job: Job) -> None:
        if job.runner_id is not None:
            self._background.spawn(
                cancel_at_runner(self._hub, job.runner_id, job.record.id), name=f"cancel {job.record.id}"
            )

    async def _fail(self, job: Job, failure: Fail) -> None:
        record = await patiently(
            lambda: self._store.update_session(
                job.record.id,
                status=ProvisioningStatus.FAILED,
                failure_code=failure.code,
                failure_message=failure.message,
            )
        )
        if record is not None:  # None: the project was deleted meanwhile
            await self._outcomes.job_failed(record, failure.code, failure.message)

    async def _agent(self, job: Job) -> DeployedAgent | None:
        """What the session is to run: the deployed agent, or another build with the deployed settings."""
        agent = await patiently(lambda: self._store.deployed_agent(job.record.project_id))
        wanted = job.record.build_id
        if agent is None or wanted is None or wanted == agent.build_id:
            return agent
        build = await patiently(lambda: self._store.get_build(job.record.project_id, wanted))
        if build is None:
            return None
        return msgspec.structs.replace(agent, build_id=build.id, bundle_checksum=build.checksum_sha256)


async def cancel_at_runner(hub: RelayHub, runner_id: str, session_id: str) -> None:
    """Tell the runner to let go of the session; one that is away will be told when it says hello."""
    try:
        await hub.send(runner_id, CancelSession(session_id=session_id))
    except RunnerAway:
        _log.info("cancel_not_sent", session_id=session_id, runner_id=runner_id)


def _mode_of(job: Job, agent: DeployedAgent) -> Mode:
    """A conversation has no audio, whatever its agent has."""
    return agent.mode if job.record.conversation_id is None else Mode.DATA


def _not_deployed(job: Job) -> Fail:
    return Fail(
        FailureCode.NOT_DEPLOYED,
        f"The project {job.record.project_id} has no deployed build: deploy one, then start a session.",
    )
