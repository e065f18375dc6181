"""200 sessions started at once where 20 fit: all are served, in order, and nobody is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest
import pytest_asyncio

from tests.e2e.agents import ECHO
from tests.e2e.waiting import agents_of, eventually_true
from voicethere.cli.http_server import KEEP_ALIVE_SECONDS
from voicethere.client import Credentials, SessionErrorEnvelope, connect_session
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform, fresh_platform

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
]

CROWD = 200
CAPACITY = 20
REPEATED = 10
"""Every so manieth client sends its start twice, as one does that has lost the answer."""
CONNECTIONS = 64
PATIENCE = 150.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[RunningPlatform]:
    async with fresh_platform([f"--capacity={CAPACITY}"]) as running:
        yield running


class Person:
    """One client: starts, polls as told to, says one thing, and leaves."""

    def __init__(self, number: int, platform: RunningPlatform, deployed: Deployed) -> None:
        self._sessions = f"{platform.base_url}/v1/sessions"
        self._headers = {"Authorization": f"Bearer {deployed.client_key}"}
        self._start = {"project_id": deployed.project_id}
        self._key = {**self._headers, "Idempotency-Key": f"person-{number}"}
        self._chance = random.Random(number)
        self.twice = number % REPEATED == 0
        self.session_id = ""
        self.positions: list[int] = []
        self.errors: list[SessionErrorEnvelope] = []
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def start(self, http: httpx.AsyncClient) -> None:
        started = await asyncio.gather(
            *(http.post(self._sessions, json=self._start, headers=self._key) for _ in range(1 + self.twice))
        )
        assert [answer.status_code for answer in started] == [202] * len(started)
        (self.session_id,) = {answer.json()["session_id"] for answer in started}

    async def is_served(self, http: httpx.AsyncClient) -> None:
        async with connect_session(
            await self._credentials(http),
            customer_context={},
            on_session_error=self.errors.append,
            on_control_message=self.answers.put_nowait,
        ) as session:
            session.send_chat(self.session_id)
            while (await self.answers.get()).get("text") != self.session_id:
                pass

    async def _credentials(self, http: httpx.AsyncClient) -> Credentials:
        while True:
            answer = await http.get(f"{self._sessions}/{self.session_id}", headers=self._headers)
            assert answer.status_code == 200, answer.text
            state = answer.json()
            assert state["status"] in ("queued", "waiting", "provisioning", "ready"), state
            if state["status"] == "waiting":
                self.positions.append(state["queue_position"])
            if state["status"] == "ready":
                return msgspec.convert(state["credentials"], Credentials)
            hint = min(max(state.get("retry_after_ms") or 1000, 250), 5000) / 1000
            await asyncio.sleep(hint * self._chance.uniform(0.9, 1.1))


async def test_a_crowd_is_served_in_order(platform: RunningPlatform, operator: Operator) -> None:
    deployed = await operator.deploy(
        ECHO, name="crowd", mode="data", session_settings={"idle_timeout_enabled": False}
    )
    runner = psutil.Process(platform.runner_pid)
    scratch = Path(platform.data_dir) / "runner" / "scratch"
    before = len(list(scratch.iterdir()))
    people = [Person(number, platform, deployed) for number in range(CROWD)]
    # Not the usual 5 s, which is how far apart polls are: httpcore may close a connection that expires just
    # when it was given to a request. And not longer than the server keeps them.
    limits = httpx.Limits(
        max_connections=CONNECTIONS,
        max_keepalive_connections=CONNECTIONS,
        keepalive_expiry=0.8 * KEEP_ALIVE_SECONDS,
    )
    async with httpx.AsyncClient(timeout=60, limits=limits) as http, asyncio.timeout(PATIENCE):
        await asyncio.gather(*(person.start(http) for person in people))
        await asyncio.gather(*(person.is_served(http) for person in people))

    assert [person.errors for person in people if person.errors] == []
    waited = [person.positions for person in people if person.positions]
    assert len(waited) >= CROWD // 2  # it was a crowd
    assert [seen for seen in waited if seen != sorted(seen, reverse=True)] == []
    assert min(min(seen) for seen in waited) >= 1
    assert max(max(seen) for seen in waited) <= CROWD

    database = Path(platform.data_dir) / "voicethere.db"
    await eventually_true("the end of all sessions", lambda: len(_ended(database)) == CROWD)
    rows = _ended(database)
    assert {row["id"] for row in rows} == {person.session_id for person in people}  # nobody twice
    assert {(row["status"], row["failed"], row["end_reason"]) for row in rows} == {
        ("ready", 0, "client_close_signal")
    }
    assert _count(database, "session_errors") == _count(database, "dead_letters") == 0

    # First come, first served. A place is given in the order of the numbers; then up to CAPACITY sessions
    # are on their way to ready at once and may overtake each other: nobody is overtaken by more than those.
    served = [row["number"] for row in sorted(rows, key=lambda row: (row["completed_at_ms"], row["number"]))]
    overtaken = {
        number: sum(earlier > number for earlier in served[:place]) for place, number in enumerate(served)
    }
    assert max(overtaken.values()) <= CAPACITY, overtaken

    await eventually_true("the end of every agent's process", lambda: not agents_of(runner))
    assert len(list(scratch.iterdir())) == before


def _ended(database: Path) -> list[sqlite3.Row]:
    return _ask(database, "SELECT * FROM sessions WHERE ended_at_ms IS NOT NULL ORDER BY number")


def _count(database: Path, table: str) -> int:
    (row,) = _ask(database, f"SELECT count(*) AS rows FROM {table}")
    return int(row["rows"])


def _ask(database: Path, query: str) -> list[sqlite3.Row]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(query).fetchall()
