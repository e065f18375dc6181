"""What a session costs as sessions grow: processor time, memory, descriptors, threads; and what follows.

    python benchmarks/session_costs.py [--idle 1 10 50 100] [--speaking 1 5 10 20] [--seconds 4] [--json]

Runs a real platform (`voicethere up`) with real clients in this process. Idle: data sessions in which nothing
is said. Speaking: calls in which the agent speaks all the time and the caller's microphone is open (silence
is sent, decoded and listened to). Measured are the platform's processes alone, never the clients; these share
the cores, though, so growing ends where the machine has no more than a tenth of itself left.

The floor is the platform without sessions, in the same run. A session's cost is the slope (Theil–Sen) over
the steps, the floor included. What follows from it for a node is arithmetic, with the formulas beside it:
nothing in the last table was measured at that size. Takes two to three minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import structlog
from fault_to_client import Ears
from rich.console import Console
from rich.table import Table
from storage import to_rows

from voicethere.client import connect_session, start_session
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform, fresh_platform

CAPACITY = 2000
TOGETHER = 8
SETTLE_SECONDS = 2.0
BUSY_PERCENT = 90.0
MEGABYTE = 1024 * 1024
PARTS = ("runner", "agents", "zygote", "platform", "speech")
SHARE_FOR_SESSIONS = 0.8
"""Of a node's processor time and memory: the rest is for the system and for bursts."""

AGENT = b"""
import asyncio

from voicethere.agent import define_agent, parse_chat_text, send_to_client, speak

TEXT = "The quick brown fox jumps over the lazy dog and goes on to tell everybody how lazy that dog has been "


async def on_session_start(ctx):
    send_to_client(ctx.session_id, {"type": "started"})


async def on_data_channel_message(ctx):
    if parse_chat_text(ctx.message) == "speak":
        while True:
            await speak(ctx.session_id, TEXT)


define_agent(on_session_start=on_session_start, on_data_channel_message=on_data_channel_message)
"""

Figures = dict[str, float]


class Crowd:
    """Clients that stay until the crowd is left."""

    def __init__(self, running: RunningPlatform, deployed: Deployed, http: httpx.AsyncClient) -> None:
        self._running = running
        self._deployed = deployed
        self._http = http
        self._stack = contextlib.AsyncExitStack()
        self.size = 0

    async def grow(self, size: int) -> None:
        """To so many."""
        while self.size < size:
            together = min(TOGETHER, size - self.size)
            async with asyncio.TaskGroup() as group:
                for _ in range(together):
                    group.create_task(self._one())
            self.size += together

    async def leave(self) -> None:
        await self._stack.aclose()

    async def _one(self) -> None:
        started = await start_session(
            self._running.base_url,
            self._deployed.project_id,
            api_key=self._deployed.client_key,
            http=self._http,
        )
        if started.credentials is None:
            raise SystemExit(f"no session: {started.code}: {started.message}")
        ears = Ears()
        session = await self._stack.enter_async_context(
            connect_session(
                started.credentials,
                customer_context={"userId": "u_123"},  # without one the agent's start waits half a second
                on_session_error=ears.on_error,
                on_control_message=ears.on_message,
            )
        )
        await ears.until("the agent's start", lambda: "started" in ears.messages)
        if started.credentials.mode.has_audio:
            session.send_chat("speak")


def parts_of(runner_pid: int) -> dict[str, list[psutil.Process]]:
    """The platform's processes by what they are."""
    runner = psutil.Process(runner_pid)
    top = runner.parent()
    if top is None:
        raise SystemExit("the runner has no parent: it is not the platform's any more")
    found: dict[str, list[psutil.Process]] = {part: [] for part in PARTS}
    found["runner"].append(runner)
    found["platform"].append(top)
    for child in runner.children():
        words = " ".join(child.cmdline())
        found["zygote" if "zygote" in words else "speech"].append(child)
        if "zygote" in words:
            found["agents"] += child.children()
    return found


def held(runner_pid: int) -> Figures:
    """Processor seconds used so far, and what is held now, by part."""
    figures: Figures = {}
    for part, processes in parts_of(runner_pid).items():
        for name in ("cpu", "mb", "fds", "threads"):
            figures[f"{part}/{name}"] = 0.0
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
                times = process.cpu_times()
                figures[f"{part}/cpu"] += times.user + times.system
                figures[f"{part}/mb"] += process.memory_full_info().pss / MEGABYTE
                figures[f"{part}/fds"] += process.num_fds()
                figures[f"{part}/threads"] += process.num_threads()
    return figures


async def look(runner_pid: int, seconds: float) -> tuple[Figures, float]:
    """What is held, `cpu` in milliseconds a second over the next `seconds`; and how much of the machine the
    platform and the clients took, in %."""
    await asyncio.sleep(SETTLE_SECONDS)
    before = await asyncio.to_thread(held, runner_pid)
    ourselves = time.process_time()
    began = time.monotonic()
    await asyncio.sleep(seconds)
    ourselves = time.process_time() - ourselves
    took = time.monotonic() - began
    after = await asyncio.to_thread(held, runner_pid)
    for part in PARTS:
        used = after[f"{part}/cpu"] - before[f"{part}/cpu"]
        after[f"{part}/cpu"] = used / took * 1000
    used = ourselves + sum(after[f"{part}/cpu"] for part in PARTS) / 1000 * took
    busy = used / took / (os.cpu_count() or 1) * 100
    return {name: round(value, 2) for name, value in after.items()}, busy


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median slope of all pairs (Theil–Sen)."""
    pairs = itertools.combinations(points, 2)
    return statistics.median((y - x) / (m - n) for (n, x), (m, y) in pairs if m != n)


def each_of(steps: Sequence[dict[str, Any]]) -> Figures:
    """What one session more costs, by part and in all."""
    cost = {
        name: slope([(step["sessions"], step["held"][name]) for step in steps]) for name in steps[0]["held"]
    }
    for unit in ("cpu", "mb", "fds", "threads"):
        cost[f"all/{unit}"] = sum(cost[f"{part}/{unit}"] for part in PARTS)
    return {name: round(value, 3) for name, value in cost.items()}


async def measure_kind(mode: str, sizes: Sequence[int], seconds: float) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    limits = httpx.Limits(max_connections=TOGETHER, max_keepalive_connections=TOGETHER)
    async with (
        fresh_platform([f"--capacity={CAPACITY}", "--log-level=WARNING"]) as running,
        Operator(running) as operator,
        httpx.AsyncClient(limits=limits) as http,
    ):
        deployed = await operator.deploy(
            AGENT, name=f"Costs, {mode}", mode=mode, session_settings={"idle_timeout_enabled": False}
        )
        first = Crowd(running, deployed, http)  # what is made once is not a session's cost
        await first.grow(1)
        await first.leave()
        while parts_of(running.runner_pid)["agents"]:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.1)
        crowd = Crowd(running, deployed, http)
        try:
            for size in (0, *sizes):
                await crowd.grow(size)
                figures, busy = await look(running.runner_pid, seconds)
                steps.append({"sessions": size, "held": figures, "busy_percent": round(busy)})
                if busy > BUSY_PERCENT:
                    break
            descriptors = psutil.Process(running.runner_pid).rlimit(psutil.RLIMIT_NOFILE)[0]
        finally:
            await crowd.leave()
    return {"steps": steps, "each": each_of(steps), "runner_descriptor_limit": descriptors}


def node(kind: dict[str, Any], cores: int, megabytes: float) -> dict[str, float]:
    """How many sessions a node of this size would hold, by each limit; arithmetic, not measured."""
    each, base = kind["each"], kind["steps"][0]["held"]
    base_mb = sum(base[f"{part}/mb"] for part in PARTS)
    descriptors = kind["runner_descriptor_limit"] - base["runner/fds"]
    return {
        "processor": SHARE_FOR_SESSIONS * cores * 1000 / max(each["all/cpu"], 0.001),
        "one runner's event loop": SHARE_FOR_SESSIONS * 1000 / max(each["runner/cpu"], 0.001),
        "memory": (SHARE_FOR_SESSIONS * megabytes - base_mb) / max(each["all/mb"], 0.001),
        "one runner's descriptors": descriptors / max(each["runner/fds"], 0.001),
    }


FORMULAS = {
    "processor": "0.8 · cores · 1000 ms/s / (CPU of a session, all parts)",
    "one runner's event loop": "0.8 · 1000 ms/s / (CPU of a session in the runner): one process, one core",
    "memory": "(0.8 · memory − platform without sessions) / (memory of a session, all parts)",
    "one runner's descriptors": "(limit of the runner − without sessions) / (descriptors of a session)",
}


async def drained() -> float:
    """Rows a second that one embedded worker commits from a backlog, on this machine now."""
    with tempfile.TemporaryDirectory(prefix="voicethere-costs-", dir=Path.cwd()) as folder:
        found = await to_rows(Path(folder), same_process=True)
    rate = found["drained_rows_per_second"]
    assert isinstance(rate, int | float)
    return float(rate)


async def measure(idle: Sequence[int], speaking: Sequence[int], seconds: float) -> dict[str, Any]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    kinds = {
        "idle": await measure_kind("data", idle, seconds),
        "speaking": await measure_kind("voice", speaking, seconds),
    }
    cores, megabytes = os.cpu_count() or 1, psutil.virtual_memory().total / MEGABYTE
    for kind in kinds.values():
        kind["node"] = {name: int(count) for name, count in node(kind, cores, megabytes).items()}
        kind["saturates_first"] = min(kind["node"], key=kind["node"].__getitem__)
    return {
        **kinds,
        "machine_memory_mb": round(megabytes),
        "errors_per_second_of_one_worker": round(await drained()),
    }


def tables(machine: str, found: dict[str, Any]) -> list[Table]:
    shown = []
    for name in ("idle", "speaking"):
        kind = found[name]
        table = Table(title=f"{name.capitalize()} sessions, all of the platform ({machine})")
        columns = ("sessions", "CPU ms/s", "of it runner", "agents", "MB", "runner", "agents")
        for column in (*columns, "fds runner", "threads runner", "with clients"):
            table.add_column(column, justify="right")
        for step in kind["steps"]:
            figures = step["held"]
            cpu, memory = (sum(figures[f"{part}/{unit}"] for part in PARTS) for unit in ("cpu", "mb"))
            table.add_row(
                str(step["sessions"]),
                f"{cpu:.0f}",
                f"{figures['runner/cpu']:.0f}",
                f"{figures['agents/cpu']:.0f}",
                f"{memory:.0f}",
                f"{figures['runner/mb']:.0f}",
                f"{figures['agents/mb']:.0f}",
                f"{figures['runner/fds']:.0f}",
                f"{figures['runner/threads']:.0f}",
                f"{step['busy_percent']} %",
            )
        each = kind["each"]
        table.caption = (
            f"Each session: {each['all/cpu']:.1f} ms/s (runner {each['runner/cpu']:.1f}), "
            f"{each['all/mb']:.1f} MB (runner {each['runner/mb']:.2f}, agent {each['agents/mb']:.1f}), "
            f"{each['runner/fds']:.1f} descriptors in the runner, {each['zygote/fds']:.1f} in the zygote, "
            f"{each['runner/threads']:.1f} threads in the runner."
        )
        shown.append(table)
    sizes = Table(
        title=f"What follows for this node ({found['machine_memory_mb']:,} MB): sessions, by each limit"
    )
    for column in ("limit", "idle", "speaking", "formula"):
        sizes.add_column(column, justify="right" if column in ("idle", "speaking") else "left")
    for limit, formula in FORMULAS.items():
        marks = [
            f"{found[kind]['node'][limit]:,}{' (first)' if found[kind]['saturates_first'] == limit else ''}"
            for kind in ("idle", "speaking")
        ]
        sizes.add_row(limit, *marks, formula)
    sizes.caption = (
        f"Calculated, not measured. One embedded worker drains {found['errors_per_second_of_one_worker']:,} "
        "errors a second: measured in this run."
    )
    return [*shown, sizes]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--idle", type=int, nargs="+", default=[1, 10, 50, 100], help="sizes to measure")
    parser.add_argument("--speaking", type=int, nargs="+", default=[1, 5, 10, 20], help="sizes to measure")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.idle, arguments.speaking, arguments.seconds))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}"
    if arguments.json:
        print(json.dumps({"machine": machine, **found, "formulas": FORMULAS}))
        return 0
    console = Console(width=150)
    for table in tables(machine, found):
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
