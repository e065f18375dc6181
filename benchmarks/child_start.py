"""How long a confined child takes to be ready, and what it costs in memory, against a fresh interpreter.

    python benchmarks/child_start.py            a table
    python benchmarks/child_start.py --json     one JSON object

Ready is the first frame from the child's entry point, counted from the request. Both ways put up the same
walls in the same order (`voicethere.adapters.sandbox.child.become`); they differ only in where the process
comes from: forked from the zygote, or a new interpreter that imports the same modules. Memory is the
proportional set size (PSS), the mean over children that live at the same time: what they share is divided
among them, so a child costs less the more there are. The default of 32 is what two cores carry of speaking
sessions; `--alive` takes any other number. The aims: 8 times
faster; a third (light) and a fifth (with numpy) of the memory.

Then, by turns, how long a session waits for its agent (from the request to `agent_loaded`, bundle and
`on_agent_start` included) where a child is started for it, and where a warm one is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from voicethere.adapters.bundles import DirectoryBundleStore
from voicethere.adapters.sandbox import ZygoteSandbox, protocol
from voicethere.adapters.sandbox.confinement import Wall
from voicethere.adapters.sandbox.limits import Limits
from voicethere.core.clock import SystemClock
from voicethere.core.ports import ChildSpec, SandboxLimits
from voicethere.roles.runner.agent_events import AgentEvent, ChildGone
from voicethere.roles.runner.agent_supply import AgentSupply
from voicethere.roles.runner.session_environment import environment_of
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.wire import ipc
from voicethere.wire.relay import DeployedAgent
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import SessionSettings

AIM_FASTER = 8.0
MODULES = {
    "light": ["asyncio", "msgspec", "voicethere.agent.child"],
    "numpy": ["asyncio", "msgspec", "voicethere.agent.child", "numpy"],
}
AIM_MEMORY = {"light": 1 / 3, "numpy": 1 / 5}

AGENT = """
from voicethere.agent import define_agent
define_agent(on_session_end=lambda ctx: None)
"""
BUNDLES = {"light": AGENT, "numpy": f"import numpy\n{AGENT}"}

ENTRY = """
import asyncio, importlib, socket

def main(fd):
    for module in {modules}:
        importlib.import_module(module)

    async def run():
        channel = socket.socket(fileno=fd)
        channel.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(channel, bytes([0, 0, 0, 5]) + b"ready")
        await loop.sock_recv(channel, 1)

    asyncio.run(run())
"""


# What the zygote's child does, without a zygote. It imports what it takes, and nothing of this file.
FRESH = """
import os, sys
import msgspec
from voicethere.adapters.sandbox import child, landlock, readable
from voicethere.adapters.sandbox.confinement import Wall, survey

channel, parent, folder, *walls = sys.argv[1:]
os.dup2(int(channel), 3)  # a child's own place for it, which nothing else may take
sys.path.append(folder)
grants = [landlock.grant_reading(path) for path in readable.interpreter_paths()]
grants += [landlock.grant_device(path) for path in readable.DEVICES]
surroundings = child.Surroundings(
    ground=msgspec.structs.replace(survey(), parent=int(parent)),
    walls=frozenset(map(Wall, walls)),
    grants=grants,
)
child.become(surroundings, 3, 1, 2)
"""


def pss_megabytes(pid: int) -> float | None:
    """None where this user may not see it (children cannot be inspected by their own user)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        return None
    (pss,) = (int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return pss / 1024


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if len(known) == len(values) else None


def summary(times: Sequence[float], memory: float | None) -> dict[str, Any]:
    ordered = sorted(times)
    return {
        "starts": len(ordered),
        "ready_p50_ms": round(statistics.median(ordered) * 1000, 2),
        "ready_p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 2),
        "pss_mb": None if memory is None else round(memory, 2),
    }


# ------------------------------------------------------------------ forked from the zygote


async def measure_zygote(
    name: str, folder: Path, scratch: Path, starts: int, alive_count: int
) -> tuple[dict[str, Any], list[str]]:
    sandbox = ZygoteSandbox(
        preload=[*MODULES[name], f"entry_{name}"], scratch_root=scratch, import_from=[folder]
    )
    spec = ChildSpec(entry_point=f"entry_{name}:main", environment={}, read_only=[])
    times = []
    try:
        await sandbox.open()
        for _ in range(starts + 1):
            begun = time.perf_counter()
            started = await sandbox.start(spec)
            assert await anext(started.frames()) == b"ready"
            times.append(time.perf_counter() - begun)
            await started.aclose()
        alive = [await sandbox.start(spec) for _ in range(alive_count)]
        for running in alive:
            await anext(running.frames())
        memory = mean([pss_megabytes(running.pid) for running in alive])
        walls = [
            mechanism.name
            for mechanism in sandbox.mechanisms()
            if mechanism.available and mechanism.name != Wall.NAMESPACES  # put up once, around the zygote
        ]
    finally:
        await sandbox.aclose()
    return summary(times[1:], memory), walls


# ------------------------------------------------------------------ a fresh interpreter


class FreshChild:
    """A confined interpreter that has sent its first frame."""

    def __init__(self, name: str, folder: Path, scratch: Path, walls: Sequence[str]) -> None:
        begun = time.perf_counter()
        self._channel, theirs = socket.socketpair()
        with theirs:
            arguments = [theirs.fileno(), os.getpid(), folder, *walls]
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-X", "utf8", "-c", FRESH, *map(str, arguments)],
                env={"OPENBLAS_NUM_THREADS": "1", "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        limits = SandboxLimits()
        order = protocol.ChildOrder(
            entry_point=f"entry_{name}:main",
            environment={"OPENBLAS_NUM_THREADS": "1"},
            read_only=[],
            scratch=str(scratch),
            limits=msgspec.convert(msgspec.to_builtins(limits), Limits),
        )
        self._channel.sendall(protocol.frame(msgspec.msgpack.encode(order)))
        answer = msgspec.msgpack.decode(protocol.receive_frame(self._channel), type=protocol.ChildAnswer)
        assert answer.problem is None, answer.problem
        assert protocol.receive_frame(self._channel) == b"ready"
        self.ready_seconds = time.perf_counter() - begun

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()


def measure_fresh(
    name: str, folder: Path, scratch: Path, walls: Sequence[str], starts: int, alive_count: int
) -> dict[str, Any]:
    times = []
    for _ in range(starts + 1):
        fresh = FreshChild(name, folder, scratch, walls)
        times.append(fresh.ready_seconds)
        fresh.close()
    alive = [FreshChild(name, folder, scratch, walls) for _ in range(alive_count)]
    memory = mean([pss_megabytes(fresh.pid) for fresh in alive])
    for fresh in alive:
        fresh.close()
    return summary(times[1:], memory)


# ------------------------------------------------------------------ warm, and cold


class Supply:
    """A runner's supply of agents, with one deployed agent."""

    def __init__(self, sandbox: ZygoteSandbox, folder: Path) -> None:
        self._store = DirectoryBundleStore(folder / "bundles")
        self._bundles = UnpackedBundles(self._store, folder / "unpacked")
        self.agents = AgentSupply(
            sandbox=sandbox, clock=SystemClock(), limits=SandboxLimits(), bundles=self._bundles
        )

    async def deploy(self, source: str) -> DeployedAgent:
        data = source.encode()
        checksum = hashlib.sha256(data).hexdigest()
        await self._store.put(checksum, data)
        return DeployedAgent(
            project_id="p", build_id="b", bundle_checksum=checksum, mode=Mode.DATA, settings=SessionSettings()
        )

    async def seconds_to_agent(self, agent: DeployedAgent) -> float:
        """From the request to the agent being loaded."""
        outcome: asyncio.Future[AgentEvent] = asyncio.get_running_loop().create_future()

        def on_event(event: AgentEvent) -> None:
            if isinstance(event, ipc.AgentLoaded | ChildGone) and not outcome.done():
                outcome.set_result(event)

        begun = time.perf_counter()
        started = self.agents.agent(
            "s",
            agent,
            bundle_dir=await self._bundles.folder(agent.bundle_checksum),
            environment=environment_of(agent, "s", None),
            on_event=on_event,
            redact=str,
        )
        await started.start()
        event = await outcome
        taken = time.perf_counter() - begun
        assert isinstance(event, ipc.AgentLoaded), event
        await started.stop(0)
        return taken

    async def warmed(self, agent: DeployedAgent) -> None:
        warm = self.agents.warm
        self.agents.keep_warm([agent])
        async with asyncio.timeout(60):
            while True:
                if warm.waiting:
                    return
                await asyncio.sleep(0.005)


async def measure_warm(folder: Path, scratch: Path, starts: int) -> dict[str, Any]:
    sandbox = ZygoteSandbox(preload=["voicethere.agent.child"], scratch_root=scratch)
    cases: dict[str, Any] = {}
    try:
        await sandbox.open()
        supply = Supply(sandbox, folder)
        for name, source in BUNDLES.items():
            agent = await supply.deploy(source)
            await supply.seconds_to_agent(agent)  # the bundle is unpacked
            times: dict[str, list[float]] = {"cold": [], "warm": []}
            for _ in range(starts):
                times["cold"].append(await supply.seconds_to_agent(agent))
                await supply.warmed(agent)
                times["warm"].append(await supply.seconds_to_agent(agent))
                supply.agents.keep_warm([])
            cold, warm = (summary(times[way], None) for way in ("cold", "warm"))
            assert supply.agents.warm.lost == 0
            faster = statistics.median(times["cold"]) / statistics.median(times["warm"])
            cases[name] = {"cold": cold, "warm": warm, "times_faster": round(faster, 1)}
        await supply.agents.aclose()
    finally:
        await sandbox.aclose()
    return cases


# ------------------------------------------------------------------ the report


def measure(zygote_starts: int, fresh_starts: int, warm_starts: int, alive_count: int) -> dict[str, Any]:
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="child-start-") as made:
        folder, scratch = Path(made, "entries"), Path(made, "scratch")
        folder.mkdir()
        scratch.mkdir()
        for name, modules in MODULES.items():
            (folder / f"entry_{name}.py").write_text(ENTRY.format(modules=modules))
        for name in MODULES:
            forked, walls = asyncio.run(measure_zygote(name, folder, scratch, zygote_starts, alive_count))
            fresh = measure_fresh(name, folder, scratch, walls, fresh_starts, alive_count)
            memory = forked["pss_mb"] / fresh["pss_mb"] if forked["pss_mb"] and fresh["pss_mb"] else None
            cases[name] = {
                "fresh": fresh,
                "zygote": forked,
                "times_faster": round(fresh["ready_p50_ms"] / forked["ready_p50_ms"], 1),
                "share_of_memory": None if memory is None else round(memory, 3),
                "walls": walls,
            }
        warm = asyncio.run(measure_warm(Path(made), scratch, warm_starts))
    return {
        "machine": f"{os.cpu_count()} x {platform.machine()}, Linux {platform.release()}, "
        f"CPython {platform.python_version()}",
        "alive": alive_count,
        "cases": cases,
        "warm": warm,
    }


def verdict(met: bool) -> str:
    return "met" if met else "NOT met"


def table(report: dict[str, Any]) -> str:
    lines = [
        f"Child start on {report['machine']}; memory with {report['alive']} children alive",
        "",
        f"{'case':<8}{'way':<20}{'starts':>7}{'ready p50':>12}{'ready p99':>12}{'PSS each':>11}",
    ]
    for name, case in report["cases"].items():
        for way, label in (("fresh", "fresh interpreter"), ("zygote", "zygote's child")):
            row = case[way]
            memory = "unknown" if row["pss_mb"] is None else f"{row['pss_mb']:.1f} MB"
            lines.append(
                f"{name:<8}{label:<20}{row['starts']:>7}{row['ready_p50_ms']:>9.1f} ms"
                f"{row['ready_p99_ms']:>9.1f} ms{memory:>11}"
            )
    lines.append("")
    for name, case in report["cases"].items():
        faster, share, aim = case["times_faster"], case["share_of_memory"], AIM_MEMORY[name]
        memory = "memory unknown: this user may not look into the children"
        if share is not None:
            memory = f"{share:.2f} of the memory (aim {aim:.2f}: {verdict(share <= aim)})"
        speed = f"{faster:.1f} times faster (aim {AIM_FASTER:.0f}: {verdict(faster >= AIM_FASTER)})"
        lines.append(f"{name}: {speed}; {memory}")
    lines += ["", f"{'bundle':<8}{'its agent is':<20}{'starts':>7}{'ready p50':>12}{'ready p99':>12}"]
    for name, case in report["warm"].items():
        for way, label in (("cold", "started for it"), ("warm", "warm")):
            row = case[way]
            lines.append(
                f"{name:<8}{label:<20}{row['starts']:>7}{row['ready_p50_ms']:>9.2f} ms"
                f"{row['ready_p99_ms']:>9.2f} ms"
            )
    lines.append("")
    lines += [f"{name}: {case['times_faster']:.1f} times faster" for name, case in report["warm"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--zygote-starts", type=int, default=100, metavar="N")
    parser.add_argument("--fresh-starts", type=int, default=20, metavar="N")
    parser.add_argument("--warm-starts", type=int, default=40, metavar="N", help="of each kind of bundle")
    parser.add_argument("--alive", type=int, default=32, metavar="N", help="children alive for the memory")
    arguments = parser.parse_args()
    report = measure(arguments.zygote_starts, arguments.fresh_starts, arguments.warm_starts, arguments.alive)
    print(json.dumps(report, indent=2) if arguments.json else table(report))


if __name__ == "__main__":
    main()
