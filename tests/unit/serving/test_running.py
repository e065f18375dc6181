"""A process that serves: what ends it, in which order, and who may hurry it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from structlog.testing import capture_logs

from voicethere.cli import running as running_module
from voicethere.cli.running import Running, Stopped


async def test_the_first_signal_stops_and_the_second_hurries() -> None:
    async with Running.start() as running:
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running.until_stopped() is None
        assert not running.hurried.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running.hurried.wait(), 5)


async def test_lingering_ends_when_somebody_hurries() -> None:
    async with Running.start() as running:
        waiting = asyncio.create_task(running.until_stopped(linger_seconds=3600))
        running.ask_to_stop()
        done, _ = await asyncio.wait({waiting}, timeout=0)
        assert not done
        running.ask_to_stop()
        assert await asyncio.wait_for(waiting, 5) is None


async def test_a_start_is_given_up_when_the_end_is_asked_for() -> None:
    cancelled = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with Running.start() as running:
        starting = asyncio.create_task(running.unless_stopped(never()))
        running.stop_at_once()
        with pytest.raises(Stopped):
            await asyncio.wait_for(starting, 5)
        assert cancelled.is_set()


async def test_a_start_that_fails_says_so() -> None:
    async def fails() -> None:
        raise OSError("no port")

    async with Running.start() as running:
        with pytest.raises(OSError, match="no port"):
            await running.unless_stopped(fails())


async def test_roles_end_in_the_opposite_order_of_their_start() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async with Running.start() as running:
        for name in ("first", "second", "third"):
            await running.role(name, work(name))
        await asyncio.sleep(0)
    assert ended == ["third", "second", "first"]


async def test_a_role_that_forgets_a_cancellation_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running_module, "CANCEL_AGAIN_SECONDS", 0.01)
    forgotten = 0

    async def forgetful() -> None:
        nonlocal forgotten
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if forgotten:
                    raise
                forgotten += 1

    async with Running.start() as running:
        await running.role("forgetful", forgetful())
        await asyncio.sleep(0)
    assert forgotten == 1


async def test_an_end_that_takes_long_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_module, "SLOW_END_SECONDS", 0.001)
    said = asyncio.Event()

    def hear(_logger: object, _method: str, event: dict[str, object]) -> dict[str, object]:
        if event["event"] == "still_ending" and "slow" in str(event["tasks"]):
            said.set()
        return event

    with capture_logs(processors=[hear]):
        async with Running.start() as running:
            await running.role("slow", said_so(said), lambda: None)


async def said_so(said: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await said.wait()


async def test_a_role_that_ends_by_itself_ends_the_process() -> None:
    async def breaks() -> None:
        raise RuntimeError("it broke")

    async with Running.start() as running:
        await running.role("worker", breaks())
        assert (
            await asyncio.wait_for(running.until_stopped(linger_seconds=3600), 5)
            == "the worker ended: it broke"
        )


async def test_a_role_that_ends_because_it_was_asked_to_is_no_problem() -> None:
    async with Running.start() as running:

        async def until_hurried() -> None:
            await running.hurried.wait()

        await running.role("runner", until_hurried())
        running.stop_at_once()
        assert await running.until_stopped() is None
        await asyncio.sleep(0)
    assert running.problem is None
