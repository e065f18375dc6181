"""Kill any agent at any moment: its client is told, one row is stored, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.e2e.agents import ECHO
from tests.e2e.waiting import PATIENCE, agents_of, errors_at_the_end, eventually_true
from voicethere.client import ConnectError, Credentials, SessionErrorEnvelope, connect_session, start_session
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
]

DATA_SESSIONS = 50
VOICE_SESSIONS = 5
SURVIVORS = {3, 17, 31, 44, 52}
SEED = 20_261
NEVER_IDLE = {"idle_timeout_enabled": False}


class Person:
    """One client: what it was told, and how its session goes."""

    def __init__(self, number: int, deployed: Deployed) -> None:
        self.number = number
        self.deployed = deployed
        self.survives = number in SURVIVORS
        self.errors: list[SessionErrorEnvelope] = []
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.credentials: Credentials | None = None
        self.agent_pid = 0

    @property
    def session_id(self) -> str:
        assert self.credentials is not None
        return self.credentials.session_id

    async def start(self, platform: RunningPlatform) -> None:
        started = await start_session(
            platform.base_url, self.deployed.project_id, api_key=self.deployed.client_key
        )
        assert started.ok, started
        self.credentials = started.credentials

    async def talk_until_killed(self, when: float | None) -> None:
        """Connect, and have the agent killed `when` seconds later; None: it is dead already."""
        assert self.credentials is not None
        kill: asyncio.TimerHandle | None = None
        if when is not None:
            kill = asyncio.get_running_loop().call_later(when, os.kill, self.agent_pid, signal.SIGKILL)
        try:
            async with connect_session(
                self.credentials,
                customer_context={"n": self.number},
                on_session_error=self.errors.append,
                on_control_message=self.messages.put_nowait,
            ) as session:
                async with asyncio.timeout(PATIENCE):
                    await session.closed
        except ConnectError:
            pass  # it was told before it counted itself connected
        finally:
            if kill is not None:
                kill.cancel()

    async def talk(self, over: asyncio.Event) -> None:
        """Keep talking until all others are done; nothing may be wrong."""
        assert self.credentials is not None
        async with connect_session(
            self.credentials,
            customer_context={"n": self.number},
            on_session_error=self.errors.append,
            on_control_message=self.messages.put_nowait,
        ) as session:
            turn = 0
            while not over.is_set() or turn < 3:
                turn += 1
                session.send_chat(f"turn {turn}")
                async with asyncio.timeout(PATIENCE):
                    while (await self.messages.get()).get("text") != f"turn {turn}":
                        pass
            await session.close()


class Footprint(msgspec.Struct, frozen=True):
    """What the runner's process holds."""

    threads: int
    descriptors: int
    agents: int
    scratch: int


def footprint(runner: psutil.Process, scratch: Path) -> Footprint:
    return Footprint(
        threads=runner.num_threads(),
        descriptors=runner.num_fds(),
        agents=len(agents_of(runner)),
        scratch=sum(1 for _ in scratch.iterdir()),
    )


async def test_kill_any_child_at_any_moment(platform: RunningPlatform, operator: Operator) -> None:
    data = await operator.deploy(ECHO, name="data", mode="data", session_settings=NEVER_IDLE)
    voice = await operator.deploy(
        ECHO, name="voice", mode="voice", session_settings={**NEVER_IDLE, "error_message": "Sorry."}
    )
    runner = psutil.Process(platform.runner_pid)
    scratch = Path(platform.data_dir) / "runner" / "scratch"

    # Once of each kind, so that what is made once (decoders, caches) is there before we count.
    for deployed in (data, voice):
        warm = Person(-1, deployed)
        await warm.start(platform)
        await eventually_true("the first agent's process", lambda: bool(agents_of(runner)))
        (warm.agent_pid,) = agents_of(runner)
        await warm.talk_until_killed(0.5)
        # Then its folder and its sockets are gone, too: we count what stays.
        await errors_at_the_end(operator, deployed.project_id, warm.session_id)
        assert not agents_of(runner)
    before = footprint(runner, scratch)

    chance = random.Random(SEED)
    people = [Person(n, voice if n >= DATA_SESSIONS else data) for n in range(DATA_SESSIONS + VOICE_SESSIONS)]
    known: set[int] = set()
    for person in people:
        await person.start(platform)
        await eventually_true("the agent's process", lambda: bool(agents_of(runner) - known))
        (person.agent_pid,) = agents_of(runner) - known
        known.add(person.agent_pid)

    over = asyncio.Event()
    survivors = [asyncio.create_task(person.talk(over)) for person in people if person.survives]
    victims = []
    for person in people:
        if person.survives:
            continue
        when: float | None = chance.choice([None, 0.0, chance.uniform(0.0, 0.3), chance.uniform(0.3, 4.0)])
        if when is None:
            os.kill(person.agent_pid, signal.SIGKILL)  # before its client is there
        victims.append(asyncio.create_task(person.talk_until_killed(when)))
    await asyncio.gather(*victims)
    over.set()
    await asyncio.gather(*survivors)

    for person in people:
        told = [error.code for error in person.errors]
        rows = await errors_at_the_end(operator, person.deployed.project_id, person.session_id)
        expected = [] if person.survives else ["AGENT_CHILD_CRASHED"]
        assert told == expected, (person.number, told)
        assert [row["code"] for row in rows] == expected, (person.number, rows)
        if rows:
            assert rows[0]["details"]["crash_kind"] == "signal"

    await eventually_true("the end of every agent's process", lambda: not agents_of(runner))
    await eventually_true(
        f"a runner that holds no more than before ({before})",
        lambda: (
            footprint(runner, scratch).threads <= before.threads
            and footprint(runner, scratch).descriptors <= before.descriptors
        ),
    )
    assert footprint(runner, scratch).scratch == before.scratch
