"""How long until the client knows why its agent failed, next to what the leading frameworks tell theirs.

    python benchmarks/time_to_reason.py [--sessions 10] [--json]

Runs a real platform (`voicethere up`) and real data sessions. Their agents fail in five ways: a handler
raises, the process is killed, the event loop is blocked, the bundle raises while it is imported,
`on_session_start` raises. Measured is the time from the fault to `on_session_error`, and checked that the
error says why: its code, and for what raised also the exception in the stack. The floor is the round trip of
100 bytes on a bare data channel, back to back and after pauses of 50 ms, in the same run. It takes about
half a minute. (`fault_to_client.py` measures voice, ear and database too, for two of these faults.)

A fault's moment is the agent's own clock just before it, or ours before the signal. A blocked event loop
can only be told from a busy one by waiting: the contract allows 5 s without an answer to a ping, and a ping
goes out every second, so 5 to 6.25 s are expected. What the frameworks do is quoted, not measured here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import statistics
import sys
from typing import Any

from channel_round_trip import percentile
from fault_to_client import (
    ASK_EVERY_SECONDS,
    BETWEEN_SECONDS,
    LIMIT_SECONDS,
    Ears,
    Fault,
    kill_process,
    measure_floor,
    raise_in_handler,
)
from rich.console import Console
from rich.table import Table

from voicethere.client import ConnectError, Session, SessionErrorEnvelope, connect_session, start_session
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform, fresh_platform

BLOCKED_LIMIT_SECONDS = 5.0
"""Without an answer to a ping, by the contract."""
PING_INTERVAL_SECONDS = 1.0
BLOCKED_AT_ONCE = 5
"""Blocked agents sleep, they do not spin: several at once do not slow each other down."""
WARM_UP_SESSIONS = 2
MOMENT = re.compile(r" \(at ([0-9.]+)\)")
"""What raises at a session's start cannot send its moment first: it is in the exception's words."""

AGENT = b"""
import asyncio
import json
import os
import time

from voicethere.agent import define_agent, parse_chat_text, send_to_client

FAULT = json.loads(os.environ.get("AGENT_CUSTOMER_CONTEXT", "{}")).get("fault")

if FAULT == "import_raises":
    raise RuntimeError(f"no account service (at {time.monotonic()})")


async def on_session_start(ctx):
    if FAULT == "session_start_raises":
        raise RuntimeError(f"no account service (at {time.monotonic()})")
    send_to_client(ctx.session_id, {"type": "process", "pid": os.getpid()})


async def on_data_channel_message(ctx):
    text = parse_chat_text(ctx.message)
    if text == "fail":
        send_to_client(ctx.session_id, {"type": "fault", "at": time.monotonic()})
        raise RuntimeError("the account service refused")
    if text == "block":
        moment = time.monotonic() + 0.05  # the loop has to send this before it is blocked
        send_to_client(ctx.session_id, {"type": "fault", "at": moment})
        await asyncio.sleep(moment - time.monotonic())
        time.sleep(600)


define_agent(on_session_start=on_session_start, on_data_channel_message=on_data_channel_message)
"""
"""It raises at import in sessions only: the bundle loads where it is validated."""


async def block_event_loop(session: Session, ears: Ears) -> float:
    session.send_chat("block")
    await ears.until("the agent's word of its fault", lambda: "fault" in ears.messages)
    return float(ears.messages["fault"]["at"])


PROVOKED: dict[str, Fault] = {
    "handler_raises": raise_in_handler,
    "process_killed": kill_process,
    "loop_blocked": block_event_loop,
}
"""Faults of a session that runs; the others happen by themselves when it starts."""

CODES = {
    "handler_raises": "AGENT_HANDLER_FAILED",
    "process_killed": "AGENT_CHILD_CRASHED",
    "loop_blocked": "AGENT_CHILD_CRASHED",
    "import_raises": "AGENT_CHILD_CRASHED",
    "session_start_raises": "AGENT_HANDLER_FAILED",
}
WITH_STACK = ("handler_raises", "import_raises", "session_start_raises")

LABELS = {
    "handler_raises": "a handler raises",
    "process_killed": "the process is killed",
    "loop_blocked": "the event loop is blocked",
    "import_raises": "the import raises",
    "session_start_raises": "on_session_start raises",
}

FRAMEWORKS_MEASURED = "quoted: measured on another machine of the same kind (2 cores, x86-64, CPython 3.11)"
FRAMEWORKS = {
    "a hook or callback raises": (
        "no error event; the session stays open",
        "event handlers: log only; processors: told in 17 ms, without category or stack",
    ),
    "the process is killed": (
        "parent knows in 11–17 ms; what the client learns is left to the room",
        "a bare “closed” after 31 s",
    ),
    "the event loop is blocked": ("killed after 60 s", "a bare “closed” after 31 s"),
    "entry code raises": (
        "told nothing; the job is recorded as a success",
        "nothing within 60 s",
    ),
}
"""What a client of LiveKit Agents 1.8.9 and of Pipecat 1.14.0 is told."""


class ReasonEars(Ears):
    """Keeps the whole error too."""

    def __init__(self) -> None:
        super().__init__()
        self.error: SessionErrorEnvelope | None = None

    def on_error(self, error: SessionErrorEnvelope) -> None:
        self.error = self.error or error
        super().on_error(error)


class Bench:
    """Provokes faults on one platform; `figures` are milliseconds per fault, `read` what the client got."""

    def __init__(self, running: RunningPlatform, operator: Operator, deployed: Deployed) -> None:
        self._running = running
        self._operator = operator
        self._deployed = deployed
        self.figures: dict[str, list[float]] = {}
        self.read: dict[str, tuple[str, str]] = {}

    async def session(self, fault: str, *, lasts: float = BETWEEN_SECONDS) -> None:
        """One session from its start to the error that explains its end; `lasts` seconds before the fault."""
        started = await start_session(
            self._running.base_url,
            self._deployed.project_id,
            api_key=self._deployed.client_key,
            customer_context={"fault": fault},  # here, not on connecting: the process starts before that
        )
        if started.credentials is None:
            raise SystemExit(f"no session: {started.code}: {started.message}")
        ears = ReasonEars()
        connecting = connect_session(
            started.credentials,
            customer_context={"fault": fault},
            on_session_error=ears.on_error,
            on_control_message=ears.on_message,
        )
        moment = None
        # An agent that fails at its start may end the session while the client is still connecting.
        with contextlib.suppress(ConnectError):
            async with connecting as session:
                if fault in PROVOKED:
                    await ears.until("the agent's process id", lambda: "process" in ears.messages)
                    await asyncio.sleep(lasts)
                    moment = await PROVOKED[fault](session, ears)
                await ears.until("session_error", lambda: ears.error is not None)
        self._take(fault, ears, moment)
        if fault not in self.read:
            await self._read(fault, ears)

    async def _read(self, fault: str, ears: ReasonEars) -> None:
        """What the client has read of it, and what the operator reads."""
        assert ears.error is not None
        error = ears.error
        rows: list[dict[str, Any]] = []
        async with asyncio.timeout(LIMIT_SECONDS):
            while not rows:
                await asyncio.sleep(ASK_EVERY_SECONDS)
                rows = await self._operator.errors(self._deployed.project_id, error.session_id)
        last_line = (error.stack or "").strip().rpartition("\n")[2]
        texts = (last_line or error.message, str(rows[0]["message"]))
        self.read[fault] = (MOMENT.sub("", texts[0]), MOMENT.sub("", texts[1]))

    def _take(self, fault: str, ears: ReasonEars, moment: float | None) -> None:
        error = ears.error
        if error is None or ears.told_at is None or error.code != CODES[fault]:
            raise SystemExit(f"{fault}: the client was told {error}, not {CODES[fault]}")
        stack = error.stack or ""
        if fault in WITH_STACK and "RuntimeError: " not in stack:
            raise SystemExit(f"{fault}: the stack does not say what was raised: {stack!r}")
        if moment is None:
            said = MOMENT.search(stack)
            if said is None:
                raise SystemExit(f"{fault}: the stack does not say when: {stack!r}")
            moment = float(said[1])
        self.figures.setdefault(fault, []).append((ears.told_at - moment) * 1000)


async def measure(sessions: int) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    """p50, p99 and count per fault and floor, milliseconds; what client and operator read per fault."""
    floor, paused = await measure_floor()
    async with fresh_platform() as running, Operator(running) as operator:
        deployed = await operator.deploy(
            AGENT, name="Time to reason", mode="data", session_settings={"idle_timeout_enabled": False}
        )
        bench = Bench(running, operator, deployed)
        quick = [fault for fault in CODES if fault != "loop_blocked"]
        for fault in quick:
            for _ in range(WARM_UP_SESSIONS):
                await bench.session(fault)
        bench.figures.clear()
        for _ in range(sessions):
            for fault in quick:
                await bench.session(fault)
        left = sessions
        while left > 0:
            # Spread over the second between two pings, as faults are that nobody times.
            spread = [nth * PING_INTERVAL_SECONDS / BLOCKED_AT_ONCE for nth in range(BLOCKED_AT_ONCE)]
            await asyncio.gather(*(bench.session("loop_blocked", lasts=wait) for wait in spread[:left]))
            left -= BLOCKED_AT_ONCE
    taken = {"floor": floor, "paused": paused, **{fault: bench.figures[fault] for fault in CODES}}
    figures = {
        name: {
            "p50": round(statistics.median(values), 2),
            "p99": round(percentile(values, 0.99), 2),
            "count": len(values),
        }
        for name, values in taken.items()
    }
    return figures, bench.read


def tables(machine: str, figures: dict[str, Any], read: dict[str, tuple[str, str]]) -> list[Table]:
    ours = Table(title=f"From the fault until the client knows why, in milliseconds ({machine})")
    for column in ("", "code", "the client reads, at the end", "the operator reads"):
        ours.add_column(column)
    for column in ("p50", "p99", "n"):
        ours.add_column(column, justify="right")

    def add(name: str, label: str, code: str = "", client: str = "", operator: str = "") -> None:
        row = figures[name]
        ours.add_row(
            label, code, client, operator, f"{row['p50']:.2f}", f"{row['p99']:.2f}", f"{row['count']}"
        )

    add("floor", "floor: round trip")
    add("paused", "floor after 50 ms each")
    for fault, label in LABELS.items():
        add(fault, label, CODES[fault], *read[fault])
    ours.caption = (
        f"Blocked: the limit is {BLOCKED_LIMIT_SECONDS:g} s without an answer to a ping, one ping a second."
    )
    theirs = Table(title="What a client of the frameworks is told", caption=FRAMEWORKS_MEASURED)
    for column in ("", "LiveKit Agents 1.8.9", "Pipecat 1.14.0"):
        theirs.add_column(column)
    for label, told in FRAMEWORKS.items():
        theirs.add_row(label, *told)
    return [ours, theirs]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=10, help="per fault")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    arguments = parser.parse_args()
    figures, read = asyncio.run(measure(arguments.sessions))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}"
    if arguments.json:
        limits = {"loop_blocked": BLOCKED_LIMIT_SECONDS * 1000}
        quoted = {"where": FRAMEWORKS_MEASURED, "livekit_agents_and_pipecat": FRAMEWORKS}
        print(
            json.dumps(
                {"machine": machine, "ms": figures, "limit_ms": limits, "read": read, "frameworks": quoted}
            )
        )
        return 0
    console = Console(width=150)
    for table in tables(machine, figures, read):
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
