"""From `queued` to `ready` or `failed`, on real parts; only time is moved by hand."""

from __future__ import annotations

from typing import Any

import pytest

from voicethere.testing.scripted_runner import Refusal
from voicethere.wire.control_plane import SessionErrorRow
from voicethere.wire.relay import AssignSession, CancelSession
from voicethere.wire.session_api import FailureCode, Mode

from .conftest import Platform, eventually

WAITING_ONLY = {
    "queue_position",
    "waiting_since",
    "waiting_expires_at",
    "queue_last_seen_at",
    "estimated_wait_seconds",
}


async def failed(platform: Platform, session_id: str, code: str) -> tuple[dict[str, Any], SessionErrorRow]:
    """The state of a failed job and the one error that is stored for it."""
    state = await platform.until(session_id, status="failed")
    assert state["failure_code"] == code
    assert state["failure_message"]
    assert "credentials" not in state
    assert not WAITING_ONLY & set(state)
    (row,) = await platform.errors(session_id)
    assert row.source == "provisioning"
    assert row.details["failure_code"] == code
    assert row.message == state["failure_message"]
    state = await platform.poll(session_id)
    assert state["end_reason"] == "error"
    assert state["ended_at"]
    assert state["completed_at"]
    return state, row


def advance(platform: Platform, seconds: float) -> None:
    platform.clock.advance(seconds)
    platform.service.tick()


async def looked(platform: Platform) -> None:
    """Once the coordinator has looked for what is due: a tick while it does so is no further look."""
    await eventually(lambda: not platform.coordinator._looking)


# ---------------------------------------------------------------------- failures


async def test_an_undeployed_project_fails_as_such(platform: Platform) -> None:
    await platform.runner()
    session_id = await platform.start(customer_context={"user": "u-1", "password": "hunter2"})
    _, row = await failed(platform, session_id, "NOT_DEPLOYED")
    assert row.code == "PROVISIONING_FAILED"
    assert row.recoverable is False
    assert row.customer_context is not None
    assert row.customer_context["user"] == "u-1"
    assert "hunter2" not in str(row)


async def test_without_any_runner_a_job_fails_after_a_grace(platform: Platform) -> None:
    await platform.deploy()
    session_id = await platform.start()
    await eventually(lambda: bool(platform.coordinator.placement._jobs))
    advance(platform, 4.9)
    state = await platform.poll(session_id)
    assert state["status"] in ("queued", "provisioning")
    assert 250 <= state["retry_after_ms"] <= 5000
    advance(platform, 0.2)
    _, row = await failed(platform, session_id, "RUNNER_UNAVAILABLE")
    assert row.code == "PROVISIONING_FAILED"


async def test_a_runner_that_comes_within_the_grace_gets_the_job(platform: Platform) -> None:
    await platform.deploy()
    session_id = await platform.start()
    advance(platform, 4.0)
    runner = await platform.runner()
    assert (await runner.heard(AssignSession)).session_id == session_id
    await platform.until(session_id, status="ready")


async def test_a_runner_that_does_not_answer_is_a_timeout(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    runner.answer = None
    session_id = await platform.start()
    await runner.heard(AssignSession)
    advance(platform, 29.0)
    assert (await platform.poll(session_id))["status"] == "provisioning"
    advance(platform, 1.0)
    _, row = await failed(platform, session_id, "TIMEOUT")
    assert row.code == "PROVISIONING_TIMEOUT"
    assert row.recoverable is True
    assert (await runner.heard(CancelSession)).session_id == session_id
    # Too late: the runner must let go of what it accepts now.
    await runner.accept(session_id)
    assert (await runner.heard(CancelSession, count=2)).session_id == session_id
    assert (await platform.poll(session_id))["status"] == "failed"


async def test_a_refusal_is_the_jobs_failure(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    runner.answer = Refusal(FailureCode.ORCHESTRATOR_ERROR, "the bundle cannot be read")
    session_id = await platform.start()
    state, _ = await failed(platform, session_id, "ORCHESTRATOR_ERROR")
    assert state["failure_message"] == "the bundle cannot be read"


async def test_an_unavailable_runner_is_passed_over_for_another(platform: Platform) -> None:
    await platform.deploy()
    poor = await platform.runner("poor", capacity=9)
    poor.answer = Refusal(FailureCode.RUNNER_UNAVAILABLE, "no sandbox here")
    good = await platform.runner("good", capacity=1)
    session_id = await platform.start()
    assert (await poor.heard(AssignSession)).session_id == session_id
    assert (await good.heard(AssignSession)).session_id == session_id
    await platform.until(session_id, status="ready")


async def test_where_every_runner_is_unavailable_the_job_says_why(platform: Platform) -> None:
    await platform.deploy()
    for name in ("a", "b"):
        runner = await platform.runner(name)
        runner.answer = Refusal(FailureCode.RUNNER_UNAVAILABLE, "no sandbox here")
    session_id = await platform.start()
    state, _ = await failed(platform, session_id, "RUNNER_UNAVAILABLE")
    assert state["failure_message"] == "no sandbox here"


async def test_a_runner_lost_before_it_answers_gives_the_job_to_another(platform: Platform) -> None:
    await platform.deploy()
    dying = await platform.runner("dying", capacity=9)
    dying.answer = None
    good = await platform.runner("good", capacity=1)
    session_id = await platform.start()
    await dying.heard(AssignSession)
    await dying.aclose()
    assert (await good.heard(AssignSession)).session_id == session_id
    await platform.until(session_id, status="ready")
    assert (await platform.store.get_session(session_id)).runner_id == "good"  # type: ignore[union-attr]


async def test_a_failed_job_is_stored_once_although_the_queue_was_away(platform: Platform) -> None:
    platform.queue.unavailable = "the disk is full"
    session_id = await platform.start()
    await platform.until(session_id, status="failed")
    platform.queue.unavailable = None
    await failed(platform, session_id, "NOT_DEPLOYED")


# ---------------------------------------------------------------------- capacity


async def test_a_full_platform_lets_sessions_wait_in_order(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner(capacity=1)
    first = (await platform.hosted(runner))["session_id"]
    second = await platform.start()
    state = await platform.until(second, status="waiting")
    third = await platform.start()
    await platform.until(third, status="waiting")

    assert state["queue_position"] == 1
    assert state["waiting_since"] == "2026-06-19T12:00:00.000Z"
    assert state["queue_last_seen_at"] == "2026-06-19T12:00:00.000Z"
    assert state["waiting_expires_at"] == "2026-06-19T14:00:00.000Z"
    assert state["estimated_wait_seconds"] > 0
    assert state["retry_after_ms"] == 1000
    assert (await platform.poll(third))["queue_position"] == 2
    assert (await platform.poll(third))["retry_after_ms"] == 2000

    await runner.close(first)
    state = await platform.until(second, status="ready")
    assert not WAITING_ONLY & set(state)
    assert "retry_after_ms" not in state
    assert (await platform.until(third, queue_position=1))["status"] == "waiting"
    await runner.close(second)
    await platform.until(third, status="ready")
    assert [m.session_id for m in runner.received if isinstance(m, AssignSession)] == [first, second, third]


async def test_a_poll_keeps_a_place_and_silence_loses_it(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner(capacity=1)
    talking = await platform.peer(await platform.hosted(runner))  # it is not reaped meanwhile
    await talking.hear()
    polled, silent = await platform.start(), await platform.start()
    await platform.until(polled, status="waiting")
    await platform.until(silent, status="waiting")

    advance(platform, 60 * 60)
    await looked(platform)
    state = await platform.poll(polled)
    assert state["waiting_since"] == "2026-06-19T12:00:00.000Z"
    assert state["queue_last_seen_at"] == "2026-06-19T13:00:00.000Z"
    assert state["waiting_expires_at"] == "2026-06-19T15:00:00.000Z"
    advance(platform, 60 * 60 + 1)
    await looked(platform)  # and only then polled: that would keep its place
    await failed(platform, silent, "CAPACITY_WAIT_EXPIRED")
    assert (await platform.poll(polled))["status"] == "waiting"


async def test_who_does_not_want_to_wait_is_told_at_once(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner(capacity=1)
    await platform.hosted(runner, wait_for_capacity=False)
    answer = await platform.post(wait_for_capacity=False)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "CAPACITY_EXCEEDED"
    assert int(answer.headers["retry-after"]) >= 1
    rows = await platform.store.list_sessions(platform.project.id, start=None, end=None, limit=10)
    assert len(rows) == 1


async def test_a_place_that_is_free_belongs_to_those_who_wait(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner(capacity=1)
    hosted = await platform.hosted(runner)
    waiting = await platform.start()
    await platform.until(waiting, status="waiting")
    runner.answer = None
    await runner.close(hosted["session_id"])
    await runner.heard(AssignSession, count=2)
    assert (await platform.post(wait_for_capacity=False)).status_code == 429


async def test_a_runner_that_is_fuller_than_it_seemed_makes_the_session_wait(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner(capacity=1)
    runner.answer = Refusal(FailureCode.CAPACITY_EXCEEDED, "still tearing down")
    session_id = await platform.start()
    await platform.until(session_id, status="waiting")
    runner.answer = True
    await runner.beat()
    await platform.until(session_id, status="ready")


async def test_the_emptiest_runner_is_chosen(platform: Platform) -> None:
    await platform.deploy()
    small = await platform.runner("small", capacity=2)
    large = await platform.runner("large", capacity=3)
    for _ in range(5):
        await platform.until(await platform.start(), status="ready")
    assert (len(small.sessions), len(large.sessions)) == (2, 3)


# ---------------------------------------------------------------------- nobody comes


async def test_a_session_that_nobody_joins_is_reaped_without_an_error(platform: Platform) -> None:
    await platform.deploy(mode=Mode.DATA)
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    advance(platform, 119.0)
    assert runner.sessions
    advance(platform, 1.0)
    assert (await runner.heard(CancelSession)).session_id == credentials["session_id"]
    await eventually(lambda: platform.hosted_by(credentials["session_id"]) is None)
    assert await platform.queue.depth() == 0  # its end is the runner's to queue


async def test_a_session_that_somebody_joined_is_not_reaped(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    peer = await platform.peer(credentials)
    await peer.hear()
    await peer.aclose()
    advance(platform, 600.0)
    assert platform.hosted_by(credentials["session_id"]) is not None
    assert not [m for m in runner.received if isinstance(m, CancelSession)]


@pytest.mark.parametrize("dead", [True, False])
async def test_an_unclaimed_session_ends_although_its_runner_does_not_answer(
    platform: Platform, dead: bool
) -> None:
    await platform.deploy()
    runner = await platform.runner()
    runner.obeys_cancel = False
    credentials = await platform.hosted(runner)
    advance(platform, 120.0)
    await runner.heard(CancelSession)
    if dead:
        await runner.aclose()
        await eventually(lambda: runner.runner_id not in platform.coordinator.runners)
    advance(platform, 30.0)
    await platform.errors(credentials["session_id"], count=0)
    state = await platform.poll(credentials["session_id"])
    assert (state["status"], state["end_reason"]) == ("ready", "client_disconnected")
    assert state["ended_at"]
