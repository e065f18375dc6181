"""The platform itself fails: its runner dies or hangs, its session service is killed, its files are
locked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from tests.e2e.agents import ECHO
from tests.e2e.person import Person
from tests.e2e.waiting import PATIENCE, errors_at_the_end, eventually, eventually_true, runs
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform
from voicethere.testing.roles_apart import RolesApart, roles_apart

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

MISSING_RUNNER_SECONDS = SessionServiceSettings().relink_grace_seconds
"""How long the sessions of a runner that is merely away are waited for."""
NEVER_IDLE = {"idle_timeout_enabled": False}


async def stored(operator: Operator, person: Person) -> list[dict[str, Any]]:
    """The session's errors once its end is stored."""
    return await errors_at_the_end(operator, person.deployed.project_id, person.session_id)


async def codes(operator: Operator, person: Person) -> list[str]:
    return [row["code"] for row in await stored(operator, person)]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else holds this database and writes to it, for long."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


class Keeper:
    """The process of `voicethere up`, which keeps a runner."""

    def __init__(self, platform: RunningPlatform) -> None:
        self._process = psutil.Process(psutil.Process(platform.runner_pid).ppid())

    def runner(self) -> psutil.Process | None:
        """The runner that it keeps now; None while there is none."""
        for child in self._process.children():
            with contextlib.suppress(psutil.Error):
                if "runner" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    return child
        return None

    async def present_runner(self) -> psutil.Process:
        """The same, waited for."""

        async def look() -> psutil.Process | None:
            return self.runner()

        runner = await eventually("a runner", look)
        assert runner is not None
        return runner


@pytest.fixture(scope="module")
def keeper(platform: RunningPlatform) -> Keeper:
    return Keeper(platform)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployed(operator: Operator) -> Deployed:
    return await operator.deploy(ECHO, name="echo", mode="data", session_settings=NEVER_IDLE)


# ------------------------------------------------------------------ the files


async def test_a_locked_database_keeps_no_client_waiting_and_loses_no_row(
    platform: RunningPlatform, operator: Operator, deployed: Deployed
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        people = [await stack.enter_async_context(Person(platform, deployed)) for _ in range(3)]
        with locked(Path(platform.data_dir) / "voicethere.db"):
            for person in people:
                person.session.send_chat("raise")
            assert [await person.is_told() for person in people] == ["AGENT_HANDLER_FAILED"] * 3
            for person in people:
                await person.session.closed
                row = await operator.session(deployed.project_id, person.session_id)
                assert row["ended_at"] is None
        for person in people:
            assert await codes(operator, person) == ["AGENT_HANDLER_FAILED"]


async def test_a_locked_queue_is_spooled_and_a_killed_runner_loses_nothing_of_it(
    platform: RunningPlatform, operator: Operator, deployed: Deployed, keeper: Keeper
) -> None:
    data = Path(platform.data_dir)
    async with Person(platform, deployed) as first, Person(platform, deployed) as second:
        with locked(data / "queue.db"):
            first.session.send_chat("raise")
            assert await first.is_told() == "AGENT_HANDLER_FAILED"
            # Its end is durable, and so it is over, although the queue takes nothing.
            await eventually_true("the agent's end", lambda: not psutil.pid_exists(first.agent_pid))
            await eventually_true("the session's end in the spool", lambda: spooled(data) == 2)
            # Killed between the two, it would leave a session that the service still answers for.
            await eventually_true("the service's knowing of it", lambda: is_over(data, first.session_id))
            (await keeper.present_runner()).kill()
            assert await second.is_told() == "RUNNER_INTERNAL"
        assert await codes(operator, first) == ["AGENT_HANDLER_FAILED"]
        assert await codes(operator, second) == ["RUNNER_INTERNAL"]
    await eventually_true("an empty spool", lambda: spooled(data) == 0)


def logged(platform: RunningPlatform, event: str, **fields: str) -> datetime:
    """When the platform logged this of exactly that, the first time."""
    log = (Path(platform.data_dir) / "logs" / "platform.log").read_text(encoding="utf-8")
    for line in log.splitlines():
        entry = json.loads(line)
        if {**entry, "event": event, **fields} == entry:
            return datetime.fromisoformat(entry["timestamp"])
    pytest.fail(f"the platform did not log {event} {fields}")


def is_over(data: Path, session_id: str) -> bool:
    """Whether the session service has heard from the runner that the session is over."""
    log = (data / "logs" / "platform.log").read_text(encoding="utf-8")
    return any("session_over" in line and session_id in line for line in log.splitlines())


def spooled(data: Path) -> int:
    """How many records are in the runners' spool files."""
    return sum(path.read_bytes().count(b"\xff\xfeVS") for path in (data / "runner" / "spool").glob("*.spool"))


# ------------------------------------------------------------------ the runner


async def test_clients_of_a_killed_runner_are_told_and_the_next_session_works(
    platform: RunningPlatform, operator: Operator, deployed: Deployed, keeper: Keeper
) -> None:
    runner = await keeper.present_runner()
    async with Person(platform, deployed) as first, Person(platform, deployed) as second:
        processes = [runner, *runner.children(recursive=True)]
        assert len(processes) >= 5  # runner, zygote, recognizer, two agents
        runner.kill()
        assert [await person.is_told() for person in (first, second)] == ["RUNNER_INTERNAL"] * 2
        for person in (first, second):
            (row,) = await stored(operator, person)
            # By the platform's own clock: our own may be slow to hear of it.
            lost_at = logged(platform, "runner_link_lost", runner_id=row["details"]["runner_id"])
            over_at = logged(platform, "session_over", session_id=person.session_id)
            assert (over_at - lost_at).total_seconds() < MISSING_RUNNER_SECONDS
            assert (row["code"], row["source"], row["recoverable"]) == ("RUNNER_INTERNAL", "runner", False)
            assert row["details"]["runner_id"].startswith("runner-")
            ended = await operator.session(deployed.project_id, person.session_id)
            assert ended["end_reason"] == "error"
    await eventually_true(
        "the end of all processes of the runner",
        lambda: not any(runs(process) for process in processes),
    )
    async with Person(platform, deployed) as later:
        await later.talks("still here?")
        assert (await keeper.present_runner()).pid != runner.pid


async def test_a_runner_that_hangs_is_replaced(
    platform: RunningPlatform, operator: Operator, deployed: Deployed, keeper: Keeper
) -> None:
    runner = await keeper.present_runner()
    async with Person(platform, deployed) as person:
        runner.suspend()
        assert await person.is_told() == "RUNNER_INTERNAL"
        assert await codes(operator, person) == ["RUNNER_INTERNAL"]
        await eventually_true("the end of the runner that hangs", lambda: not runs(runner))
    async with Person(platform, deployed) as later:
        await later.talks("still here?")


# ------------------------------------------------------------------ roles apart


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apart() -> AsyncIterator[RolesApart]:
    async with roles_apart() as roles:
        yield roles


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far_operator(apart: RolesApart) -> AsyncIterator[Operator]:
    async with Operator(apart.control_plane) as operator:
        yield operator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(far_operator: Operator) -> Deployed:
    return await far_operator.deploy(ECHO, name="far", mode="data", session_settings=NEVER_IDLE)


async def test_sessions_live_through_the_death_of_the_session_service(
    apart: RolesApart, far_operator: Operator, far: Deployed
) -> None:
    service = apart.session_service
    async with Person(service, far) as first, Person(service, far) as second:
        await apart.sessions.end(signal.SIGKILL)
        await first.talks("is anybody there?")
        # Told by the runner, and kept by the queue until a worker is back.
        first.session.send_chat("raise")
        assert await first.is_told() == "AGENT_HANDLER_FAILED"
        await apart.sessions.start(f"--port={service.base_url.rpartition(':')[2]}")
        assert await codes(far_operator, first) == ["AGENT_HANDLER_FAILED"]

        async with Person(service, far) as later:
            await later.talks("a new one")
            await second.talks("and the old one")
            second.session.send_chat("raise")
            assert await second.is_told() == "AGENT_HANDLER_FAILED"
            assert await codes(far_operator, second) == ["AGENT_HANDLER_FAILED"]
            await later.session.close()
        assert await codes(far_operator, later) == []


async def test_a_runner_that_comes_back_lets_go_of_what_was_given_up(
    apart: RolesApart, far_operator: Operator, far: Deployed
) -> None:
    runner = psutil.Process(apart.runner.pid)
    async with Person(apart.session_service, far) as person:
        runner.suspend()
        assert await person.is_told() == "RUNNER_INTERNAL"
        assert await codes(far_operator, person) == ["RUNNER_INTERNAL"]
        runner.resume()
        await eventually_true("the agent's end", lambda: not psutil.pid_exists(person.agent_pid))
    async with Person(apart.session_service, far) as later:
        await later.talks("welcome back")
        await later.session.close()
    # What the runner had to say of the first is in front of this one's end.
    assert await codes(far_operator, later) == []
    assert await codes(far_operator, person) == ["RUNNER_INTERNAL"]
    assert len(person.errors) == 1


async def test_a_second_session_service_on_the_same_data_is_refused(apart: RolesApart) -> None:
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "voicethere.cli.main", "serve", "sessions", "--port=0"),
        f"--data-dir={apart.sessions.data_dir}",
        f"--log-file={os.devnull}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        _, said = await second.communicate()
    assert second.returncode == 1
    assert b"Error: cannot serve" in said
    assert b"Traceback" not in said
