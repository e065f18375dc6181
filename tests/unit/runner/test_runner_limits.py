"""What a runner takes and refuses, ends on order, and says of itself."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.runner.running_runner import running_runner
from voicethere.roles.runner.settings import InvalidSetting, RunnerSettings, changed
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire import ipc
from voicethere.wire.control_channel import EndReason
from voicethere.wire.queue import ErrorItem, SessionEndedItem
from voicethere.wire.relay import EndSession, RoomClosed, SessionAccepted, SessionRefused
from voicethere.wire.session_api import FailureCode

MIB = 1024 * 1024


@in_virtual_time
async def test_of_a_burst_of_sessions_it_takes_as_many_as_fit() -> None:
    names = [f"s{number}" for number in range(10)]
    async with running_runner(capacity=3) as bench:
        await bench.assign(*names)
        assert [accepted.session_id for accepted in bench.of(SessionAccepted)] == names[:3]
        refused = bench.of(SessionRefused)
        assert [refusal.session_id for refusal in refused] == names[3:]
        # They may wait for room: this is no failure of the runner.
        assert {refusal.failure_code for refusal in refused} == {FailureCode.CAPACITY_EXCEEDED}
        assert "hosts 3 sessions" in refused[0].message
        assert bench.runner.gauges().refused == {"CAPACITY_EXCEEDED": 7}
        assert len(bench.sandbox.children) == 3


@in_virtual_time
async def test_a_session_that_it_has_is_accepted_again_however_full_it_is() -> None:
    async with running_runner(capacity=1) as bench:
        await bench.assign("s1", "s1")
        assert [accepted.session_id for accepted in bench.of(SessionAccepted)] == ["s1", "s1"]
        assert len(bench.sandbox.children) == 1


@in_virtual_time
async def test_what_is_over_makes_room() -> None:
    async with running_runner(capacity=1) as bench:
        await bench.live("s1")
        bench.from_client("s1", {"type": "session_close"})
        await asyncio.sleep(5)
        await bench.assign("s2")
        assert bench.of(SessionRefused) == []
        assert bench.runner.hosted() == ["s2"]


@in_virtual_time
async def test_where_memory_is_short_sessions_wait_as_for_any_room() -> None:
    available = 2000 * MIB
    async with running_runner(memory=lambda: available, min_free_memory_mb=1000) as bench:
        await bench.assign("s1")
        available = 999 * MIB
        await bench.assign("s2")
        (refused,) = bench.of(SessionRefused)
        assert (refused.session_id, refused.failure_code) == ("s2", FailureCode.CAPACITY_EXCEEDED)
        assert "less than 1000 MiB" in refused.message
        available = 1000 * MIB
        await bench.assign("s2")
        assert bench.runner.hosted() == ["s1", "s2"]


@pytest.mark.parametrize("reason", [EndReason.AGENT_DISCONNECTED, EndReason.RUNNER_SHUTDOWN])
@in_virtual_time
async def test_a_session_is_ended_in_order_for_the_reason_that_the_service_says(reason: EndReason) -> None:
    async with running_runner() as bench:
        await bench.live("s1", "s2")
        await bench.tell(EndSession(session_id="s1", end_reason=reason))
        await asyncio.sleep(5)
        assert [close["reason"] for close in bench.told("s1", "session_close")] == [reason.value]
        assert [end.session_id for end in bench.sandbox.children[0].of(ipc.SessionEnd)] == ["s1"]
        (end,) = await bench.queued()
        assert isinstance(end, SessionEndedItem)
        assert (end.session_id, end.end_reason, end.failed) == ("s1", reason.value, False)
        assert [closed.session_id for closed in bench.of(RoomClosed)] == ["s1"]
        assert bench.runner.hosted() == ["s2"]


@in_virtual_time
async def test_the_end_of_a_session_that_it_does_not_have_is_answered_by_that() -> None:
    async with running_runner() as bench:
        await bench.tell(EndSession(session_id="gone", end_reason=EndReason.RUNNER_SHUTDOWN))
        assert [closed.session_id for closed in bench.of(RoomClosed)] == ["gone"]


@in_virtual_time
async def test_a_session_that_cannot_be_taken_is_refused_and_the_others_go_on() -> None:
    async with running_runner() as bench:
        await bench.live("s1")
        bench.broken.add("s2")
        await bench.assign("s2")
        (refused,) = bench.of(SessionRefused)
        assert (refused.session_id, refused.failure_code) == ("s2", FailureCode.RUNNER_UNAVAILABLE)
        await bench.live("s3")
        assert bench.runner.hosted() == ["s1", "s3"]


@in_virtual_time
async def test_what_it_says_of_itself() -> None:
    async with running_runner(capacity=5) as bench:
        await bench.live("s1", "s2")
        bench.sandbox.children[0].die()
        await asyncio.sleep(5)
        gauges = bench.runner.gauges()
        assert (gauges.sessions, gauges.capacity, gauges.draining) == (1, 5, False)
        assert (gauges.children, gauges.warm_children, gauges.warm_taken, gauges.warm_lost) == (1, 0, 0, 0)
        assert gauges.errors == {"AGENT_CHILD_CRASHED": 1}
        assert gauges.queue_put_failures == 0
        assert [type(item) for item in await bench.queued()] == [ErrorItem, SessionEndedItem]


@pytest.mark.parametrize(
    "change", ["drain_seconds=-1", "drain_seconds=soon", "warm_children=-1", "min_free_memory_mb=x"]
)
def test_a_setting_that_is_none_is_refused(change: str) -> None:
    with pytest.raises(InvalidSetting, match=change.partition("=")[0]):
        changed(RunnerSettings(runner_id="r"), [change])


def test_settings_are_taken_as_an_operator_writes_them() -> None:
    settings = changed(RunnerSettings(runner_id="r"), ["drain_seconds=30", "warm_children_per_agent=2"])
    assert (settings.drain_seconds, settings.warm_children_per_agent) == (30, 2)
