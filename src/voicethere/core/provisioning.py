"""The rules of provisioning: which runner hosts a session, who waits, for how long, and when it fails.

Knows runners by what they can carry and requests by what they asked for. Does no I/O and reads no clock:
every time here is in seconds of a clock that never jumps, passed in by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import msgspec

from voicethere.wire.session_api import FailureCode

WAIT_SECONDS = 120 * 60.0


class ProvisioningRules(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a provisioning job, in seconds.

    `runner_grace_seconds`: how long no runner at all may be linked (one may be starting) before a job fails.
    `accept_seconds`: how long a runner may take to accept. `wait_seconds`: how long a place in the line is
    kept without a poll. `unclaimed_seconds`: how long a ready session is kept that nobody joins.
    """

    runner_grace_seconds: float = 5.0
    accept_seconds: float = 30.0
    wait_seconds: float = WAIT_SECONDS
    unclaimed_seconds: float = 120.0


class RunnerLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What one linked runner carries.

    `hosted` is what it was given by us; `reported_active` what it said last, which may lag behind or hold
    sessions that are still being torn down. The larger of the two counts.
    """

    runner_id: str
    capacity: int
    hosted: int = 0
    reported_active: int = 0
    draining: bool = False

    @property
    def free(self) -> int:
        """How many more sessions it can take."""
        if self.draining:
            return 0
        return max(0, self.capacity - max(self.hosted, self.reported_active))


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A session that wants a runner. `refused_by` are the runners that could not take it, and `refusal` the
    last one's code and words."""

    requested_at: float
    wait_for_capacity: bool = True
    refused_by: frozenset[str] = frozenset()
    refusal: tuple[FailureCode, str] | None = None


class Assign(msgspec.Struct, frozen=True):
    """Give the session to this runner."""

    runner_id: str


class Wait(msgspec.Struct, frozen=True):
    """Every runner is full: keep a place in the line."""


class Hold(msgspec.Struct, frozen=True):
    """No runner is linked, but one may be starting: decide again soon."""


class Fail(msgspec.Struct, frozen=True):
    """The job has failed."""

    code: FailureCode
    message: str


Decision = Assign | Wait | Hold | Fail


def decide(
    request: Request,
    runners: Collection[RunnerLoad],
    *,
    now: float,
    runnerless_since: float | None,
    rules: ProvisioningRules,
) -> Decision:
    """What becomes of `request` now. `runnerless_since` is when the last runner went (None: some are linked).

    The caller asks for older requests first: that, and nothing here, makes the line first come first served.
    """
    eligible = [runner for runner in runners if runner.runner_id not in request.refused_by]
    if not eligible:
        since = max(request.requested_at, runnerless_since if runnerless_since is not None else 0.0)
        if not runners and now - since < rules.runner_grace_seconds:
            return Hold()
        code, message = request.refusal or (
            FailureCode.RUNNER_UNAVAILABLE,
            "No runner is linked to the session service; start one.",
        )
        return Fail(code, message)
    best = max(eligible, key=lambda runner: runner.free)
    if best.free > 0:
        return Assign(best.runner_id)
    if request.wait_for_capacity:
        return Wait()
    return Fail(FailureCode.CAPACITY_EXCEEDED, "Every runner is full, and the request did not want to wait.")


def has_room(runners: Collection[RunnerLoad]) -> bool:
    """Whether some runner could take one more session."""
    return any(runner.free > 0 for runner in runners)


def estimate_wait_seconds(position: int, *, capacity: int, mean_session_seconds: float) -> float:
    """How long the one at `position` (from 1) may wait: whole rounds of `capacity` sessions ending."""
    return math.ceil(position / max(1, capacity)) * mean_session_seconds


def mean_after(mean: float, sample: float, *, weight: float = 0.2) -> float:
    """A running mean of session lengths in which the last ones count most."""
    return mean + weight * (sample - mean)
