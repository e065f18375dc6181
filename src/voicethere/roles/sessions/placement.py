"""Which job gets a runner, and when; and what time does to those under way.

The line of those that wait is the database's (every service tells places in it): here it is only the order of
the jobs' tickets.

Carries out `core.provisioning` over the jobs that are there, oldest first, whenever something has changed.
Does no I/O: what is decided is put into a job's news, and the job's own task acts on it.
"""

from __future__ import annotations

from collections.abc import Collection

from voicethere.core.ports import Clock
from voicethere.core.provisioning import (
    Assign,
    Fail,
    Hold,
    ProvisioningRules,
    Wait,
    decide,
    mean_after,
)
from voicethere.roles.sessions.jobs import Accepted, Job, Refused, RunnerWent, Stage, TimedOut
from voicethere.roles.sessions.runners import LinkedRunners
from voicethere.wire.relay import CapacityNow
from voicethere.wire.session_api import FailureCode

FIRST_GUESS_OF_A_SESSION = 60.0
"""Seconds; the mean learns from the sessions that end."""


class Placement:
    """Holds the jobs that are under way."""

    def __init__(self, *, clock: Clock, rules: ProvisioningRules, runners: LinkedRunners) -> None:
        self._clock = clock
        self._rules = rules
        self._runners = runners
        self._jobs: dict[str, Job] = {}
        self._mean_session_seconds = FIRST_GUESS_OF_A_SESSION

    def add(self, job: Job) -> None:
        """The job takes part from now on."""
        self._jobs[job.record.id] = job

    def remove(self, job: Job) -> None:
        """The job is done."""
        del self._jobs[job.record.id]

    def get(self, session_id: str) -> Job | None:
        """The session's job, while it is under way."""
        return self._jobs.get(session_id)

    @property
    def jobs(self) -> Collection[Job]:
        """All that are under way."""
        return self._jobs.values()

    def capacity_now(self) -> CapacityNow:
        """What every service should know of runners and the line."""
        return CapacityNow(
            runners=len(self._runners),
            capacity=self._runners.capacity,
            free=self._runners.free,
            waiting=sum(job.stage is Stage.WAITING for job in self._jobs.values()),
            mean_session_seconds=self._mean_session_seconds,
        )

    # ------------------------------------------------------------------ news of runners

    def accepted(self, runner_id: str, session_id: str) -> Job | None:
        """A runner hosts the session. None where no job gave it to this runner: it must let go of it."""
        job = self._assigned(runner_id, session_id)
        if job is not None and job.agent is not None:
            self._settle(job, Accepted(runner_id))
            return job
        return None

    def adopted(self, runner_id: str, session_id: str) -> bool:
        """A runner hosts a session whose job began anew, because the service did. False: it must let go."""
        job = self._jobs.get(session_id)
        if job is None or job.stage not in (Stage.PREPARING, Stage.LOOKING, Stage.WAITING):
            return False
        job.runner_id = runner_id
        self._settle(job, Accepted(runner_id))
        return True

    def refused(self, runner_id: str, session_id: str, code: FailureCode, message: str) -> None:
        """The runner cannot host the session."""
        job = self._assigned(runner_id, session_id)
        if job is not None:
            self._settle(job, Refused(code, message))

    def not_listed(self, runner_id: str, listed: Collection[str]) -> None:
        """The runner has said hello: what it was given and does not list may not have reached it. It is sent
        again, which costs nothing where it is on its way: a runner takes a session once."""
        for job in self._assigned_to(runner_id):
            if job.agent is not None and job.record.id not in listed:
                job.news.put_nowait(Assign(runner_id))

    def runner_gone(self, runner_id: str) -> None:
        """A runner's link is lost: what it has not accepted goes to another one."""
        for job in self._assigned_to(runner_id):
            self._settle(job, RunnerWent())
        self.dispatch()

    def session_lasted(self, seconds: float) -> None:
        """A session is over: the estimate learns from it, and somebody may have a place now."""
        self._mean_session_seconds = mean_after(self._mean_session_seconds, seconds)
        self.dispatch()

    # ------------------------------------------------------------------ decisions

    def dispatch(self) -> None:
        """Decide about every job that looks for a runner, oldest first."""
        now = self._clock.monotonic()
        looking = [job for job in self._jobs.values() if job.stage in (Stage.LOOKING, Stage.WAITING)]
        for job in sorted(looking, key=lambda job: job.ticket):
            decision = decide(
                job.request,
                self._runners.loads(),
                now=now,
                runnerless_since=self._runners.runnerless_since,
                rules=self._rules,
            )
            match decision:
                case Assign(runner_id):
                    job.stage = Stage.ASSIGNED
                    job.runner_id = runner_id
                    job.accept_deadline = now + self._rules.accept_seconds
                    self._runners.reserve(runner_id, job.record.id)
                    job.news.put_nowait(decision)
                case Fail():
                    self._settle(job, decision)
                case Wait() if job.stage is Stage.LOOKING:
                    job.stage = Stage.WAITING
                    job.news.put_nowait(decision)
                case Wait() | Hold():
                    pass

    def tick(self) -> None:
        """Let time do its work: runners are too slow, a runner is awaited in vain."""
        now = self._clock.monotonic()
        for job in self._jobs.values():
            if job.stage is Stage.ASSIGNED and job.accept_deadline is not None and job.accept_deadline <= now:
                self._settle(job, TimedOut())
        self.dispatch()

    def expire(self, session_id: str) -> None:
        """Nobody has asked for this session for too long. Harmless where it does not wait (any more)."""
        job = self._jobs.get(session_id)
        if job is not None and job.stage is Stage.WAITING:
            minutes = self._rules.wait_seconds / 60
            message = f"Nobody asked for this session for {minutes:g} minutes while it waited."
            self._settle(job, Fail(FailureCode.CAPACITY_WAIT_EXPIRED, message))

    def _settle(self, job: Job, news: Accepted | Refused | RunnerWent | TimedOut | Fail) -> None:
        """Nothing else is decided about the job until its task has acted on this."""
        job.stage = Stage.DECIDED
        job.news.put_nowait(news)

    def _assigned_to(self, runner_id: str) -> list[Job]:
        return [
            job for job in self._jobs.values() if job.runner_id == runner_id and job.stage is Stage.ASSIGNED
        ]

    def _assigned(self, runner_id: str, session_id: str) -> Job | None:
        job = self._jobs.get(session_id)
        if job is None or job.stage is not Stage.ASSIGNED or job.runner_id != runner_id:
            return None
        return job
