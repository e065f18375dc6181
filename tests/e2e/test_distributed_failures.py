"""Roles on several machines' engines die, drain and come back: clients and rows, from all sides."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import psutil
import pytest
import pytest_asyncio

from tests.e2e.agents import ECHO
from tests.e2e.person import Person
from tests.e2e.waiting import errors_at_the_end, eventually, runs
from voicethere.testing.distributed import Distributed, distributed_platform
from voicethere.testing.platform_process import Deployed, Operator
from voicethere.testing.role_process import Role

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[Distributed]:
    async with distributed_platform(durable=True, settings={"drain_seconds": 600}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(platform: Distributed) -> AsyncIterator[Operator]:
    async with Operator(platform.control_plane) as working:
        yield working


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployed(operator: Operator) -> Deployed:
    return await operator.deploy(
        ECHO, name="far", mode="data", session_settings={"idle_timeout_enabled": False}
    )


async def codes(operator: Operator, person: Person) -> list[str]:
    """The session's stored errors, once its end is stored."""
    rows = await errors_at_the_end(operator, person.deployed.project_id, person.session_id)
    return [row["code"] for row in rows]


def host_of(platform: Distributed, person: Person) -> Role:
    """The runner whose process has the person's agent below it."""
    above = {process.pid for process in psutil.Process(person.agent_pid).parents()}
    return next(role for role in platform.runners if role.running and role.pid in above)


class Places(msgspec.Struct, frozen=True):
    """What who assigns sessions has to give away, as it tells every service."""

    runners: int
    capacity: int
    free: int


async def places(platform: Distributed) -> Places:
    """As the first service knows them."""
    async with httpx.AsyncClient(timeout=30) as http:
        metrics = (await http.get(platform.service.said["ops_url"] + "/metrics")).text
    numbers = dict(line.rpartition(" ")[::2] for line in metrics.splitlines() if not line.startswith("#"))
    named = ("runners", "sessions_capacity", "sessions_free")
    return Places(*(int(float(numbers.get(f"voicethere_{name}", "0"))) for name in named))


async def test_sessions_start_at_one_service_while_another_coordinates(
    platform: Distributed, operator: Operator, deployed: Deployed
) -> None:
    first, second = platform.session_services
    async with Person(first, deployed) as one, Person(second, deployed) as other:
        await one.talks("here")
        await other.talks("there")
        for person in (one, other):
            person.session.send_chat("raise")
            assert await person.is_told() == "AGENT_HANDLER_FAILED"
            assert await codes(operator, person) == ["AGENT_HANDLER_FAILED"]


async def test_the_death_of_the_service_that_coordinates_is_not_noticed(
    platform: Distributed, operator: Operator, deployed: Deployed
) -> None:
    first, second = platform.session_services
    async with Person(second, deployed) as person:
        await platform.sessions[0].end(signal.SIGKILL)
        await person.talks("still here?")
        async with Person(second, deployed) as later:  # once another coordinates
            await later.talks("a new one")
        await platform.sessions[0].start()
        async with Person(first, deployed) as last:
            await last.talks("at the one that is back")
        await person.talks("and still here")


async def test_clients_of_a_dead_runner_are_told_and_others_do_not_notice(
    platform: Distributed, operator: Operator, deployed: Deployed
) -> None:
    services = platform.session_services
    await eventually(
        "two runners without a session",
        lambda: places(platform),
        lambda now: now.runners == 2 and now.free == now.capacity,
    )
    people = [Person(services[number % 2], deployed) for number in range(4)]
    for person in people:
        await person.__aenter__()
    try:
        hosts = [host_of(platform, person) for person in people]
        assert len({role.name for role in hosts}) == 2, "free capacity decides: both runners host"
        doomed = hosts[0]
        await doomed.end(signal.SIGKILL)
        for person, host in zip(people, hosts, strict=True):
            if host is doomed:
                assert await person.is_told() == "RUNNER_INTERNAL"
                assert await codes(operator, person) == ["RUNNER_INTERNAL"]
            else:
                await person.talks("fine here")
        await doomed.start()
    finally:
        for person in people:
            await person.__aexit__()


async def test_an_error_outlives_workers_queue_and_database(
    platform: Distributed, operator: Operator, deployed: Deployed
) -> None:
    async with Person(platform.session_service, deployed) as person:
        for worker in platform.workers:
            await worker.end(signal.SIGKILL)
        await platform.redis.kill()
        person.session.send_chat("raise")
        assert await person.is_told() == "AGENT_HANDLER_FAILED"
        await platform.postgres.kill()
        await platform.redis.start()
        await platform.postgres.start()
        for worker in platform.workers:
            await worker.start()
        assert await codes(operator, person) == ["AGENT_HANDLER_FAILED"]


async def test_a_runner_that_leaves_lets_its_sessions_go_on(
    platform: Distributed, operator: Operator, deployed: Deployed
) -> None:
    async with Person(platform.session_service, deployed) as person:
        leaving = host_of(platform, person)
        leaving.send_signal(signal.SIGTERM)
        await eventually(
            "its word that it takes no more",
            lambda: places(platform),
            lambda now: now.free <= now.capacity / 2,
        )
        for _ in range(3):  # whoever comes now is hosted elsewhere
            async with Person(platform.session_service, deployed) as later:
                assert host_of(platform, later) is not leaving
                await later.talks("hello")
        await person.talks("and here all is well")
        assert leaving.running
        await person.session.close()
    assert await leaving.ended() == 0
    assert await codes(operator, person) == []
    await leaving.start()


async def test_a_runner_in_a_hurry_ends_its_sessions_in_order(
    platform: Distributed, operator: Operator, deployed: Deployed
) -> None:
    async with Person(platform.session_service, deployed) as person:
        leaving = host_of(platform, person)
        leaving.send_signal(signal.SIGTERM)
        async with httpx.AsyncClient(timeout=30) as http:
            # Two signals at once are one.
            await eventually(
                "its word that it leaves",
                lambda: http.get(leaving.said["ops_url"] + "/readyz"),
                lambda answer: answer.status_code == 503,
            )
        assert await leaving.end() == 0
        row: dict[str, Any] = await eventually(
            "the session's end",
            lambda: operator.session(deployed.project_id, person.session_id),
            lambda row: row["ended_at"] is not None,
        )
        assert row["end_reason"] == "runner_shutdown"
    await leaving.start()


STARTER = """
import asyncio
from voicethere.testing.distributed import distributed_platform

async def main():
    async with distributed_platform(sessions=1, workers=1, runners=1) as platform:
        print(platform.folder, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_nothing_outlives_a_killed_starter() -> None:
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    await starter.stdout.readline()
    everything = psutil.Process(starter.pid).children(recursive=True)
    assert len(everything) > 10
    commands: dict[psutil.Process, str] = {}
    for process in everything:
        with contextlib.suppress(psutil.NoSuchProcess):  # PostgreSQL's own come and go
            commands[process] = " ".join(process.cmdline())
    starter.send_signal(signal.SIGKILL)
    await starter.communicate()

    async def alive() -> list[str]:
        return [command for process, command in commands.items() if runs(process)]

    await eventually("the end of every process", alive, lambda left: not left)
