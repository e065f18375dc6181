"""One provisioning job: what it wants, where it stands, and what has been decided about it."""

from __future__ import annotations

import asyncio
import enum

import msgspec

from voicethere.adapters.store.store import SessionRecord
from voicethere.core.provisioning import Assign, Fail, Request, Wait
from voicethere.wire.relay import DeployedAgent
from voicethere.wire.session_api import FailureCode


class Stage(enum.Enum):
    """Where a job stands. Only a `LOOKING` or `WAITING` one can be given to a runner."""

    PREPARING = enum.auto()
    LOOKING = enum.auto()
    WAITING = enum.auto()
    ASSIGNED = enum.auto()
    DECIDED = enum.auto()


class Accepted(msgspec.Struct, frozen=True):
    """A runner hosts the session."""

    runner_id: str


class Refused(msgspec.Struct, frozen=True):
    """The runner cannot host it."""

    code: FailureCode
    message: str


class RunnerWent(msgspec.Struct, frozen=True):
    """The runner's link was lost before it answered."""


class TimedOut(msgspec.Struct, frozen=True):
    """The runner did not answer in time."""


News = Assign | Wait | Fail | Accepted | Refused | RunnerWent | TimedOut


class Job:
    """Mutable; changed by `Provisioner` only. Times are in seconds of a clock that never jumps."""

    def __init__(self, record: SessionRecord, *, requested_at: float) -> None:
        self.record = record
        self.requested_at = requested_at
        self.stage = Stage.PREPARING
        self.refused_by: set[str] = set()
        self.refusal: tuple[FailureCode, str] | None = None
        self.lost_runners = 0
        self.runner_id: str | None = None
        self.accept_deadline: float | None = None
        self.agent: DeployedAgent | None = None
        self.news: asyncio.Queue[News] = asyncio.Queue()

    @property
    def ticket(self) -> int:
        """The place in the order of all sessions: first come, first served."""
        return self.record.number

    @property
    def request(self) -> Request:
        """What the rules need to know."""
        return Request(
            requested_at=self.requested_at,
            wait_for_capacity=self.record.wait_for_capacity,
            refused_by=frozenset(self.refused_by),
            refusal=self.refusal,
        )
