"""From an agent's fault to its row in the API: idle, and while many sessions fail and the API is read.

    python benchmarks/fault_to_api.py [--faults 40] [--rate 4] [--seconds 20] [--json]

Runs a real platform (`voicethere up`). A fault begins when the client sends the message that makes the
agent's handler raise (so the way to the agent is in it), and ends when the answer to a
`GET …/sessions/{id}/errors` that shows the row is there; it is asked again and again. Idle: one session at a
time. Under load: sessions start and fail at a fixed rate, each measured, while two readers page through the
project's errors and sessions without a pause. All clients live in this process, on the same cores.

Two floors, taken before and after, in the same run: a request to the same HTTP server that reads one row of
the database (`GET …/projects/{id}`, on a new connection as every request here), and one row committed to a
SQLite file beside it (`synchronous=FULL`). It takes about a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import sqlite3
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from channel_round_trip import percentile
from fault_to_client import Ears
from rich.console import Console
from rich.table import Table

from voicethere.client import connect_session, start_session
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform, fresh_platform

WARM_UP = 5
FLOOR_REQUESTS = 200
FLOOR_COMMITS = 200
READERS = 2
SETTLE_SECONDS = 0.1
CODE = "AGENT_HANDLER_FAILED"

AGENT = b"""
from voicethere.agent import define_agent, send_to_client


async def on_session_start(ctx):
    send_to_client(ctx.session_id, {"type": "started"})


async def on_data_channel_message(ctx):
    raise RuntimeError("the account service refused")


define_agent(on_session_start=on_session_start, on_data_channel_message=on_data_channel_message)
"""


class Bench:
    """`figures` are milliseconds per measure."""

    def __init__(self, running: RunningPlatform, operator: Operator, deployed: Deployed) -> None:
        self._running = running
        self._operator = operator
        self._deployed = deployed
        self._http = httpx.AsyncClient()
        self.figures: dict[str, list[float]] = {}
        self.reads = 0

    async def aclose(self) -> None:
        await self._http.aclose()

    async def fault(self, measure: str) -> None:
        """One session that fails, from the command to the row, and to the client's callback."""
        started = await start_session(
            self._running.base_url,
            self._deployed.project_id,
            api_key=self._deployed.client_key,
            http=self._http,
        )
        if started.credentials is None:
            raise SystemExit(f"no session: {started.code}: {started.message}")
        ears = Ears()
        async with connect_session(
            started.credentials,
            customer_context={"userId": "u_123"},  # without one the agent's start waits half a second for it
            on_session_error=ears.on_error,
            on_control_message=ears.on_message,
        ) as session:
            await ears.until("the agent's start", lambda: "started" in ears.messages)
            await asyncio.sleep(SETTLE_SECONDS)
            began = time.monotonic()
            session.send_chat("fail")
            while not (rows := await self._operator.errors(self._deployed.project_id, session.session_id)):
                pass
            self._note(f"{measure}/stored", time.monotonic() - began)
            if [row["code"] for row in rows] != [CODE]:
                raise SystemExit(f"stored are {rows}, not one {CODE}")
            await ears.until("session_error", lambda: ears.told_at is not None)
            assert ears.told_at is not None
            self._note(f"{measure}/told", ears.told_at - began)

    async def under_load(self, rate: float, seconds: float) -> None:
        """Faults at a rate, and readers; returns when the last fault is stored."""
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as readers:
            for _ in range(READERS):
                readers.create_task(self._read(over))
            async with asyncio.TaskGroup() as faults:
                for number in range(int(rate * seconds)):
                    await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
                    faults.create_task(self.fault("load"))
            self.figures["load/seconds"] = [(loop.time() - began) * 1000]
            over.set()

    async def floors(self, database: Path) -> None:
        """Half of each floor."""
        at = f"/projects/{self._deployed.project_id}"
        for _ in range(FLOOR_REQUESTS // 2):
            began = time.monotonic()
            await self._operator.ask("GET", at)
            self._note("floor/request", time.monotonic() - began)
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("CREATE TABLE IF NOT EXISTS floor (data BLOB)")
            for _ in range(FLOOR_COMMITS // 2):
                began = time.monotonic()
                connection.execute("INSERT INTO floor VALUES (?)", (bytes(2048),))
                self._note("floor/commit", time.monotonic() - began)

    async def _read(self, over: asyncio.Event) -> None:
        at = f"/projects/{self._deployed.project_id}"
        while not over.is_set():
            await self._operator.ask("GET", f"{at}/session-errors?limit=20")
            await self._operator.ask("GET", f"{at}/sessions")
            self.reads += 2

    def _note(self, measure: str, seconds: float) -> None:
        self.figures.setdefault(measure, []).append(seconds * 1000)


async def measure(faults: int, rate: float, seconds: float) -> dict[str, Any]:
    """p50, p99 (milliseconds) and counts."""
    async with fresh_platform(["--capacity=256"]) as running, Operator(running) as operator:
        deployed = await operator.deploy(
            AGENT, name="Fault to API", mode="data", session_settings={"idle_timeout_enabled": False}
        )
        bench = Bench(running, operator, deployed)
        floor = Path(running.data_dir) / "floor.db"
        try:
            for _ in range(WARM_UP):
                await bench.fault("warm")
            await bench.floors(floor)
            for _ in range(faults):
                await bench.fault("idle")
            await bench.under_load(rate, seconds)
            await bench.floors(floor)
        finally:
            await bench.aclose()
    took = bench.figures.pop("load/seconds")[0] / 1000
    del bench.figures["warm/stored"], bench.figures["warm/told"]
    return {
        "ms": {
            name: {
                "p50": round(statistics.median(taken), 2),
                "p99": round(percentile(taken, 0.99), 2),
                "count": len(taken),
            }
            for name, taken in bench.figures.items()
        },
        "load": {
            "faults_per_second": round(len(bench.figures["load/stored"]) / took, 1),
            "reads_per_second": round(bench.reads / took, 1),
        },
    }


LABELS = {
    "floor/request": "floor: one request that reads a row",
    "floor/commit": "floor: one row committed, SQLite alone",
    "idle/told": "idle: command → on_session_error",
    "idle/stored": "idle: command → row in the API",
    "load/told": "under load: command → on_session_error",
    "load/stored": "under load: command → row in the API",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=40, help="one at a time")
    parser.add_argument("--rate", type=float, default=4.0, help="sessions that fail, each second, under load")
    parser.add_argument("--seconds", type=float, default=20.0, help="of load")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.faults, arguments.rate, arguments.seconds))
    figures, load = found["ms"], found["load"]
    floor = figures["floor/request"]["p50"] + figures["floor/commit"]["p50"]
    ratios = {name: round(figures[name]["p50"] / floor, 2) for name in ("idle/stored", "load/stored")}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}"
    if arguments.json:
        print(json.dumps({"machine": machine, **found, "ratio_to_floors": ratios}))
        return 0
    table = Table(title=f"From a fault to the API, in milliseconds ({machine})")
    table.add_column("", min_width=40)
    for column in ("p50", "p99", "n", "/ floors"):
        table.add_column(column, justify="right")
    for name, label in LABELS.items():
        row = figures[name]
        ratio = f"{ratios[name]:.1f}" if name in ratios else ""
        table.add_row(label, f"{row['p50']:.2f}", f"{row['p99']:.2f}", f"{row['count']:.0f}", ratio)
    table.caption = (
        f"Load: {load['faults_per_second']:g} failing sessions and {load['reads_per_second']:g} reads a "
        "second. Last column: p50 by the sum of both floors' p50."
    )
    Console(width=100).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
