"""A runner that is asked to leave: what it says, what it still does, and when it is gone."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.runner.running_runner import AGENT, RunningRunner, running_runner
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire import ipc
from voicethere.wire.queue import SessionEndedItem
from voicethere.wire.relay import Heartbeat, KeepWarm, RoomClosed, SessionAccepted, SessionRefused, ToService
from voicethere.wire.session_api import FailureCode


async def reasons(bench: RunningRunner) -> dict[str, tuple[str, bool]]:
    """Of all sessions whose end is stored: the reason, and whether they failed."""
    ends = [item for item in await bench.queued() if isinstance(item, SessionEndedItem)]
    return {end.session_id: (end.end_reason, end.failed) for end in ends}


@in_virtual_time
async def test_it_says_at_once_that_it_takes_no_more_and_its_sessions_go_on() -> None:
    async with running_runner(drain_seconds=3600, heartbeat_seconds=100) as bench:
        await bench.live("s1", "s2")
        assert not bench.runner.draining
        bench.runner.drain()
        await asyncio.sleep(0.01)
        assert bench.of(Heartbeat)[-1] == Heartbeat(active=2, draining=True)
        assert bench.runner.hello().draining
        assert bench.runner.hello().sessions == ["s1", "s2"]
        await bench.assign("s3")
        (refused,) = bench.of(SessionRefused)
        assert (refused.session_id, refused.failure_code) == ("s3", FailureCode.RUNNER_UNAVAILABLE)
        await asyncio.sleep(1800)
        bench.from_client("s1", {"type": "chat", "text": "still there?"})
        await asyncio.sleep(0.1)
        assert [message.session_id for message in bench.sandbox.children[0].of(ipc.DataChannelMessage)] == [
            "s1"
        ]
        assert not bench.running.done()


@in_virtual_time
async def test_it_leaves_with_its_last_session() -> None:
    async with running_runner(drain_seconds=3600) as bench:
        await bench.live("s1", "s2")
        bench.runner.drain()
        for session_id in ("s1", "s2"):
            assert not bench.running.done()
            bench.from_client(session_id, {"type": "session_close"})
            await asyncio.sleep(10)
        assert bench.running.done()
        assert await reasons(bench) == {
            "s1": ("client_close_signal", False),
            "s2": ("client_close_signal", False),
        }


@in_virtual_time
async def test_one_without_sessions_leaves_at_once() -> None:
    async with running_runner(drain_seconds=3600) as bench:
        bench.runner.drain()
        await bench.ended(1)


@pytest.mark.parametrize("ask_again", ["drain", "stop"])
@in_virtual_time
async def test_asked_again_it_ends_its_sessions_in_order(ask_again: str) -> None:
    async with running_runner(drain_seconds=3600) as bench:
        await bench.live("s1")
        bench.runner.drain()
        await asyncio.sleep(60)
        getattr(bench.runner, ask_again)()
        await bench.ended(10)
        assert [close["reason"] for close in bench.told("s1", "session_close")] == ["runner_shutdown"]
        assert len(bench.sandbox.children[0].of(ipc.SessionEnd)) == 1
        assert await reasons(bench) == {"s1": ("runner_shutdown", False)}


@in_virtual_time
async def test_what_goes_on_for_too_long_is_ended_in_order_and_the_service_hears_of_it() -> None:
    async with running_runner(drain_seconds=100) as bench:
        await bench.live("s1", "s2")
        bench.runner.drain()
        await asyncio.sleep(50)
        bench.from_client("s2", {"type": "session_close"})
        await asyncio.sleep(49)
        assert bench.told("s1", "session_close") == []
        await bench.ended(10)
        assert await reasons(bench) == {
            "s2": ("client_close_signal", False),
            "s1": ("runner_shutdown", False),
        }
        assert {closed.session_id for closed in bench.of(RoomClosed)} == {"s1", "s2"}


@in_virtual_time
async def test_where_nothing_is_set_it_ends_at_once() -> None:
    async with running_runner() as bench:
        await bench.live("s1")
        bench.runner.drain()
        await bench.ended(10)
        assert await reasons(bench) == {"s1": ("runner_shutdown", False)}
        assert [closed.session_id for closed in bench.of(RoomClosed)] == ["s1"]


@in_virtual_time
async def test_an_end_that_takes_too_long_does_not_hold_it_up_for_ever() -> None:
    async with running_runner(end_seconds=10) as bench:
        await bench.live("s1")
        bench.queue.unavailable = "the disk is full"
        bench.runner.drain()
        await asyncio.sleep(8)
        assert not bench.running.done()
        await bench.ended(5)
        assert bench.runner.gauges().queue_put_failures > 1
        bench.queue.unavailable = None


@in_virtual_time
async def test_it_warms_no_more_children_and_drops_those_it_has() -> None:
    async with running_runner(drain_seconds=3600) as bench:
        await bench.live("s1")
        await bench.tell(KeepWarm(agents=[AGENT]))
        assert bench.runner.gauges().warm_children == 1
        bench.runner.drain()
        await asyncio.sleep(1)
        await bench.tell(KeepWarm(agents=[AGENT]))
        assert bench.runner.gauges().warm_children == 0
        assert [child.killed for child in bench.sandbox.children] == [False, True]
        assert [accepted.session_id for accepted in bench.of(SessionAccepted)] == ["s1"]


@in_virtual_time
async def test_what_it_says_last_goes_out_before_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_runner() as bench:
        await bench.live("s1", "s2")
        send = bench.link.send

        async def slowly(message: ToService) -> None:
            await asyncio.sleep(0.1)
            await send(message)

        monkeypatch.setattr(bench.link, "send", slowly)
        bench.runner.drain()
        await bench.ended(10)
        assert {closed.session_id for closed in bench.of(RoomClosed)} == {"s1", "s2"}


@in_virtual_time
async def test_a_relay_that_takes_nothing_any_more_does_not_hold_it_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_runner() as bench:
        await bench.live("s1")

        async def never(message: ToService) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(bench.link, "send", never)
        bench.runner.drain()
        await bench.ended(10)
        assert await reasons(bench) == {"s1": ("runner_shutdown", False)}
