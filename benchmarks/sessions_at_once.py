"""Many sessions started at the same moment: when the first and the last are ready, and what each costs.

    python benchmarks/sessions_at_once.py [--sessions 20] [--rounds 3] [--json]

Runs a real platform (`voicethere up`), data sessions and then voice sessions. All clients live in this one
process and share its HTTP connections; their own work, on the same cores as the platform's, is part of the
times. Counted from the moment when all are started: `start_session` has credentials; the client is
connected; the agent's `on_session_start` has been heard from. The floor is one session alone, the same way,
in the same run. It takes about half a minute.

Memory is the proportional set size (PSS), before and while the sessions live: what processes share is divided
among them. Per session: the whole platform's growth, the runner's, and the mean agent child. What the
frameworks take is quoted, not measured here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from typing import Any

import httpx
import psutil
from fault_to_client import Ears
from rich.console import Console
from rich.table import Table

from voicethere.client import connect_session, start_session
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform, fresh_platform

ALONE = 5
SETTLE_SECONDS = 1.0
"""What starting has left behind is freed, or is not."""
MODES = ("data", "voice")
MEGABYTE = 1024 * 1024

AGENT = b"""
import os

from voicethere.agent import define_agent, send_to_client


async def on_session_start(ctx):
    send_to_client(ctx.session_id, {"type": "process", "pid": os.getpid()})


define_agent(on_session_start=on_session_start)
"""

FRAMEWORKS_MEASURED = "quoted: measured on another machine of the same kind (2 cores, x86-64, CPython 3.11)"
FRAMEWORKS = {
    "one job starts": (
        "warm pool: process 21–47 ms, user code 63–164 ms",
        "in the application's process",
    ),
    "20 jobs at once, the last after": ("660–1,880 ms", "–"),
    "memory per session (PSS)": ("33 MB", "2–3 MB, not isolated"),
}

STEPS = {
    "ready": "start_session → credentials",
    "connected": "→ connected",
    "agent": "→ agent started (heard from)",
}


def pss_megabytes(pids: list[int]) -> float | None:
    """Their sum; None where this user may not see one of them. A process that has ended counts nothing."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            return None
    return total / MEGABYTE


def processes_of(running: RunningPlatform) -> list[int]:
    """All processes of the platform: the runner's parent and everything below it."""
    top = psutil.Process(running.runner_pid).parent()
    if top is None:
        raise SystemExit("the runner has no parent: it is not the platform's any more")
    return [top.pid, *(child.pid for child in top.children(recursive=True))]


class Burst:
    """Some sessions, started together and alive together until the burst is left."""

    def __init__(self, running: RunningPlatform, deployed: Deployed, http: httpx.AsyncClient) -> None:
        self._running = running
        self._deployed = deployed
        self._http = http
        self._stack = contextlib.AsyncExitStack()
        self.times: dict[str, list[float]] = {step: [] for step in STEPS}
        """Milliseconds from the common start, in the order of their coming."""
        self.agents: list[int] = []

    async def start(self, count: int) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._one(began))

    async def end(self) -> None:
        await self._stack.aclose()

    async def _one(self, began: float) -> None:
        started = await start_session(
            self._running.base_url,
            self._deployed.project_id,
            api_key=self._deployed.client_key,
            http=self._http,
        )
        if started.credentials is None:
            raise SystemExit(f"no session: {started.code}: {started.message}")
        self._note("ready", began)
        ears = Ears()
        await self._stack.enter_async_context(
            connect_session(
                started.credentials,
                customer_context={"userId": "u_123"},  # without one the agent's start waits half a second
                on_session_error=ears.on_error,
                on_control_message=ears.on_message,
                speaker=ears if started.credentials.mode.has_audio else None,
            )
        )
        self._note("connected", began)
        await ears.until("the agent's process id", lambda: "process" in ears.messages)
        self._note("agent", began)
        self.agents.append(int(ears.messages["process"]["pid"]))

    def _note(self, step: str, began: float) -> None:
        self.times[step].append((time.monotonic() - began) * 1000)


class Memory:
    """The platform's memory before the sessions, to compare with."""

    def __init__(self, running: RunningPlatform) -> None:
        self._running = running
        self._before = self._now([])

    def _now(self, agents: list[int]) -> dict[str, float | None]:
        return {
            "platform": pss_megabytes(processes_of(self._running)),
            "runner": pss_megabytes([self._running.runner_pid]),
            "agent": pss_megabytes(agents),
        }

    def per_session(self, agents: list[int]) -> dict[str, float | None]:
        """Megabytes that came with each of the sessions of these agents."""
        now = self._now(agents)
        grown: dict[str, float | None] = {}
        for part, after in now.items():
            before = self._before[part]
            grown[part] = None
            if before is not None and after is not None:
                grown[part] = round((after - before) / len(agents), 2)
        return grown


async def measure_mode(
    running: RunningPlatform, deployed: Deployed, http: httpx.AsyncClient, sessions: int, rounds: int
) -> dict[str, Any]:
    """Milliseconds per step, of one alone (p50) and of the first and last of many (median of the rounds)."""
    alone: dict[str, list[float]] = {step: [] for step in STEPS}
    for nth in range(ALONE + 1):
        burst = Burst(running, deployed, http)
        await burst.start(1)
        await burst.end()
        if nth:  # the first one warms up
            for step in STEPS:
                alone[step] += burst.times[step]
    memory: dict[str, float | None] = {}
    first: dict[str, list[float]] = {step: [] for step in STEPS}
    last: dict[str, list[float]] = {step: [] for step in STEPS}
    for nth in range(rounds):
        before = Memory(running)
        burst = Burst(running, deployed, http)
        await burst.start(sessions)
        if not nth:  # later ones find memory that earlier ones have left
            await asyncio.sleep(SETTLE_SECONDS)
            memory = before.per_session(burst.agents)
        await burst.end()
        await asyncio.sleep(SETTLE_SECONDS)
        for step, times in burst.times.items():
            first[step].append(min(times))
            last[step].append(max(times))
    return {
        "ms": {
            step: {
                "alone": round(statistics.median(alone[step]), 1),
                "first": round(statistics.median(first[step]), 1),
                "last": round(statistics.median(last[step]), 1),
                "last_worst": round(max(last[step]), 1),
            }
            for step in STEPS
        },
        "memory_mb_per_session": memory,
    }


async def measure(sessions: int, rounds: int) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    limits = httpx.Limits(max_connections=sessions, max_keepalive_connections=sessions)
    async with (
        fresh_platform([f"--capacity={max(64, sessions)}"]) as running,
        Operator(running) as operator,
        httpx.AsyncClient(limits=limits) as http,
    ):
        for mode in MODES:
            deployed = await operator.deploy(
                AGENT,
                name=f"Sessions at once, {mode}",
                mode=mode,
                session_settings={"idle_timeout_enabled": False},
            )
            results[mode] = await measure_mode(running, deployed, http, sessions, rounds)
    return results


def tables(machine: str, sessions: int, results: dict[str, dict[str, Any]]) -> list[Table]:
    times = Table(title=f"{sessions} sessions at once, in milliseconds ({machine})")
    times.add_column("")
    for column in ("one alone", "first", "last", "last, worst round"):
        times.add_column(column, justify="right")
    memory = Table(title=f"Memory per session, PSS in MB, {sessions} alive")
    memory.add_column("")
    for column in ("whole platform", "runner", "agent's process"):
        memory.add_column(column, justify="right")
    for mode, result in results.items():
        for step, label in STEPS.items():
            row = result["ms"][step]
            times.add_row(f"{mode}: {label}", *(f"{value:.0f}" for value in row.values()))
        grown = result["memory_mb_per_session"]
        memory.add_row(mode, *("hidden" if value is None else f"{value:.1f}" for value in grown.values()))
    theirs = Table(title="The frameworks", caption=FRAMEWORKS_MEASURED)
    for column in ("", "LiveKit Agents 1.8.9", "Pipecat 1.14.0"):
        theirs.add_column(column)
    for label, told in FRAMEWORKS.items():
        theirs.add_row(label, *told)
    return [times, memory, theirs]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=20, help="at the same moment")
    parser.add_argument("--rounds", type=int, default=3, help="per mode")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments.sessions, arguments.rounds))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}"
    if arguments.json:
        quoted = {"where": FRAMEWORKS_MEASURED, "livekit_agents_and_pipecat": FRAMEWORKS}
        report = {"machine": machine, "sessions": arguments.sessions, **results, "frameworks": quoted}
        print(json.dumps(report))
        return 0
    console = Console(width=110)
    for table in tables(machine, arguments.sessions, results):
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
