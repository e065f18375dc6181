"""Readiness names what is missing, never waits for long, and never shows a password."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from voicethere.cli.ops_readiness import Readiness
from voicethere.cli.running import Running
from voicethere.core.ports import QueueUnavailable


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with Running.start() as started:
        yield started


def readiness_of(running: Running, **options: float) -> Readiness:
    made = Readiness(running, role="worker", instance="host-1-ab", **options)
    made.served()
    return made


async def fine() -> None:
    pass


async def away() -> None:
    raise QueueUnavailable("no answer from redis://:hidden@queue:6379/0")


async def hangs() -> None:
    await asyncio.Event().wait()


async def test_all_is_well(running: Running) -> None:
    readiness = readiness_of(running)
    readiness.check("database", fine)
    readiness.state("relay", lambda: None)
    report = await readiness.report()
    assert report.ready
    assert (report.role, report.instance) == ("worker", "host-1-ab")
    assert report.checks == {"role": "ok", "database": "ok", "relay": "ok"}


async def test_what_is_missing_is_named(running: Running) -> None:
    readiness = readiness_of(running, check_seconds=0.01)
    readiness.check("database", hangs)
    readiness.check("queue", away)
    readiness.state("relay", lambda: "the relay does not answer")
    report = await readiness.report()
    assert not report.ready
    assert report.checks == {
        "role": "ok",
        "database": "no answer within 0.01 s",
        "queue": "no answer from redis://***@queue:6379/0",
        "relay": "the relay does not answer",
    }


async def test_not_before_the_role_serves(running: Running) -> None:
    readiness = Readiness(running, role="worker", instance="i")
    assert (await readiness.report()).checks == {"role": "the role is starting"}
    readiness.served()
    assert (await readiness.report()).ready


async def test_the_end_is_seen_at_the_next_look(running: Running) -> None:
    readiness = readiness_of(running)
    readiness.check("database", fine)
    assert (await readiness.report()).ready
    running.ask_to_stop()
    report = await readiness.report()
    assert not report.ready
    assert "ending" in report.checks["role"]
    assert report.checks["database"] == "ok"


async def test_dependencies_are_not_asked_by_everyone_who_asks_us(running: Running) -> None:
    asked = 0

    async def look() -> None:
        nonlocal asked
        asked += 1

    readiness = readiness_of(running)
    readiness.check("database", look)
    await asyncio.gather(*(readiness.report() for _ in range(20)))
    assert asked == 1
