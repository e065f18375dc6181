"""The rules of provisioning, without any I/O."""

from __future__ import annotations

import pytest

from voicethere.core.provisioning import (
    Assign,
    Decision,
    Fail,
    Hold,
    ProvisioningRules,
    Request,
    RunnerLoad,
    Wait,
    decide,
    estimate_wait_seconds,
    mean_after,
)
from voicethere.roles.sessions.runners import LinkedRunners
from voicethere.wire.session_api import FailureCode

RULES = ProvisioningRules(runner_grace_seconds=5.0)


def load(runner_id: str, capacity: int, hosted: int = 0, **more: int | bool) -> RunnerLoad:
    return RunnerLoad(runner_id=runner_id, capacity=capacity, hosted=hosted, **more)  # type: ignore[arg-type]


def decided(
    request: Request, *runners: RunnerLoad, now: float = 100.0, runnerless_since: float | None = None
) -> Decision:
    return decide(request, runners, now=now, runnerless_since=runnerless_since, rules=RULES)


def test_the_runner_with_the_most_room_is_chosen() -> None:
    runners = [load("small", 2), load("large", 9, hosted=4), load("busy", 20, hosted=18)]
    assert decided(Request(requested_at=100.0), *runners) == Assign("large")


def test_a_runner_counts_as_full_by_what_it_says_too() -> None:
    assert load("r", 4, hosted=1, reported_active=3).free == 1
    assert load("r", 4, hosted=3, reported_active=1).free == 1
    assert load("r", 4, hosted=9).free == 0
    assert load("r", 4, draining=True).free == 0


def test_full_runners_make_a_request_wait() -> None:
    assert decided(Request(requested_at=0.0), load("r", 1, hosted=1)) == Wait()


def test_full_runners_fail_a_request_that_does_not_wait() -> None:
    decision = decided(Request(requested_at=0.0, wait_for_capacity=False), load("r", 1, hosted=1))
    assert isinstance(decision, Fail)
    assert decision.code is FailureCode.CAPACITY_EXCEEDED


@pytest.mark.parametrize(
    ("requested_at", "runnerless_since", "holds"),
    [
        (96.0, 0.0, True),  # a new request: a runner may be starting
        (95.0, 0.0, False),
        (0.0, 96.0, True),  # an old request: the last runner has just gone
        (0.0, 95.0, False),
    ],
)
def test_without_any_runner_a_request_is_held_for_a_grace(
    requested_at: float, runnerless_since: float, holds: bool
) -> None:
    decision = decided(Request(requested_at=requested_at), runnerless_since=runnerless_since)
    if holds:
        assert decision == Hold()
    else:
        assert isinstance(decision, Fail)
        assert decision.code is FailureCode.RUNNER_UNAVAILABLE


def test_a_refusal_sends_the_request_to_another_runner() -> None:
    request = Request(
        requested_at=100.0,
        refused_by=frozenset({"a"}),
        refusal=(FailureCode.RUNNER_UNAVAILABLE, "no speech"),
    )
    assert decided(request, load("a", 9), load("b", 1)) == Assign("b")
    assert decided(request, load("a", 9), load("b", 1, hosted=1)) == Wait()
    assert decided(request, load("a", 9)) == Fail(FailureCode.RUNNER_UNAVAILABLE, "no speech")


def test_the_estimate_counts_rounds_of_all_runners() -> None:
    assert estimate_wait_seconds(1, capacity=4, mean_session_seconds=60.0) == 60.0
    assert estimate_wait_seconds(5, capacity=4, mean_session_seconds=60.0) == 120.0
    assert estimate_wait_seconds(2, capacity=0, mean_session_seconds=60.0) == 120.0
    assert mean_after(100.0, 200.0) == 120.0


def test_linked_runners_know_their_load() -> None:
    runners = LinkedRunners(now=7.0)
    assert runners.runnerless_since == 7.0
    assert not runners.has_room
    runners.linked("r", capacity=2, hosted=["s-1"])
    assert runners.runnerless_since is None
    assert runners.has_room
    runners.reserve("r", "s-2")
    assert not runners.has_room
    runners.heartbeat("r", 2)
    runners.release("r", "s-2")
    runners.release("r", "s-2")
    assert runners.has_room  # although its last heartbeat counted the session
    runners.full("r")
    assert not runners.has_room
    runners.heartbeat("r", 1)
    assert runners.has_room
    runners.heartbeat("r", 0, draining=True)
    assert (runners.free, runners.capacity) == (0, 2)
    runners.gone("r", now=9.0)
    assert runners.runnerless_since == 9.0
    runners.gone("r", now=11.0)
    assert runners.runnerless_since == 9.0
    runners.heartbeat("r", 1)
    assert runners.loads() == []
