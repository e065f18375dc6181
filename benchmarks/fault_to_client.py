"""From an agent's fault to the client, to the ear and to the database, next to a bare data channel.

    python benchmarks/fault_to_client.py [--sessions 30] [--json]

Runs a real platform (`voicethere up`) and real sessions, one fault at a time; the floor is the round trip of
a 100-byte message between two peers in two processes, measured before and after in the same run. It is
measured twice: back to back, and after a pause of 50 ms each, for a fault comes out of silence too. The aim:
a client knows of its agent's fault within 3 times the floor's p50. Takes less than a minute.

A handler's fault is the moment before `raise`, as the agent's own clock says; a killed agent's is the moment
before the signal is sent. Audible is the arrival of the first 20 ms of speech at the Python client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from channel_round_trip import measure_round_trip, percentile
from rich.console import Console
from rich.table import Table

from voicethere.client import BufferSink, Session, SessionErrorEnvelope, connect_session, start_session
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform, fresh_platform

AIM = 3.0
FLOOR_TRIPS = 1000
PAUSED_TRIPS = 60
WARM_UP_SESSIONS = 3
VOICE_AT_ONCE = 5
IDLE_SECONDS = 1.0
"""How long a voice session is left in silence before its fault: the first silence is sent at full rate."""
BETWEEN_SECONDS = 0.05
LIMIT_SECONDS = 10.0
SOUND = 0.01
"""The rms from which 20 ms count as audible."""
ASK_EVERY_SECONDS = 0.002
CUSTOMER_CONTEXT = {"userId": "u_123", "tier": "pro"}

AGENT = b"""
import os
import time

from voicethere.agent import agent_log, define_agent, parse_chat_text, send_to_client


async def on_session_start(ctx):
    send_to_client(ctx.session_id, {"type": "process", "pid": os.getpid()})


async def on_data_channel_message(ctx):
    if parse_chat_text(ctx.message) == "fail":
        send_to_client(ctx.session_id, {"type": "fault", "at": time.monotonic()})
        raise RuntimeError("the account service refused (Authorization: Bearer vth_4Zt9KqLw2XyB8nRcV5hJ)")


async def error_hook(ctx):
    agent_log("error", f"{ctx.hook} failed")


define_agent(
    on_session_start=on_session_start,
    on_data_channel_message=on_data_channel_message,
    error_hook=error_hook,
)
"""
"""CLOCK_MONOTONIC is one for all processes of a machine: the agent's stamp can be compared with ours."""


class Ears(BufferSink):
    """What one client hears of, with the moment (`time.monotonic()`)."""

    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None
        self.told_at: float | None = None
        self.code = ""
        self.messages: dict[str, dict[str, Any]] = {}
        self._news = asyncio.Event()

    def on_error(self, error: SessionErrorEnvelope) -> None:
        self.told_at = time.monotonic()
        self.code = error.code
        self._news.set()

    def on_message(self, message: Any) -> None:
        if isinstance(message, dict):
            self.messages[str(message.get("type"))] = message
        self._news.set()

    def write(self, pcm: bytes, sample_rate: int) -> None:
        super().write(pcm, sample_rate)
        self._news.set()

    async def until(self, what: str, there: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                while not there():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise SystemExit(f"{what} did not come within {LIMIT_SECONDS:g} s") from None

    async def sound_after(self, moment: float) -> float:
        """When the first sound after `moment` arrived."""
        heard: list[float] = []

        def there() -> bool:
            found = self.first_sound_since(moment, threshold=SOUND)
            heard.extend([] if found is None else [found])
            return bool(heard)

        await self.until("the crash speech", there)
        return heard[0]


Fault = Callable[[Session, Ears], Awaitable[float]]


async def raise_in_handler(session: Session, ears: Ears) -> float:
    session.send_chat("fail")
    await ears.until("the agent's word of its fault", lambda: "fault" in ears.messages)
    return float(ears.messages["fault"]["at"])


async def kill_process(session: Session, ears: Ears) -> float:
    pid = ears.messages["process"]["pid"]
    moment = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return moment


FAULTS: dict[str, tuple[Fault, str]] = {
    "handler_raises": (raise_in_handler, "AGENT_HANDLER_FAILED"),
    "process_killed": (kill_process, "AGENT_CHILD_CRASHED"),
}


class Bench:
    """Measures on one platform; `figures` are milliseconds per measure."""

    def __init__(self, running: RunningPlatform, operator: Operator) -> None:
        self._running = running
        self._operator = operator
        self.figures: dict[str, list[float]] = {}

    async def deploy(self, mode: str) -> Deployed:
        settings = {
            "idle_timeout_enabled": False,
            "error_message": "Sorry, something went wrong.",
        }
        return await self._operator.deploy(
            AGENT, name=f"Fault to client, {mode}", mode=mode, session_settings=settings
        )

    @contextlib.asynccontextmanager
    async def client(self, deployed: Deployed) -> AsyncIterator[Ears]:
        """A connected client whose agent has said which process it is."""
        began = time.monotonic()
        started = await start_session(
            self._running.base_url, deployed.project_id, api_key=deployed.client_key
        )
        if started.credentials is None:
            raise SystemExit(f"no session: {started.code}: {started.message}")
        self.note("session_start", time.monotonic() - began)
        ears = Ears()
        async with connect_session(
            started.credentials,
            customer_context=CUSTOMER_CONTEXT,  # without one the agent's start waits half a second for it
            on_session_error=ears.on_error,
            on_control_message=ears.on_message,
            speaker=ears if started.credentials.mode.has_audio else None,
        ) as session:
            ears.session = session
            await ears.until("the agent's process id", lambda: "process" in ears.messages)
            yield ears

    async def fail(self, ears: Ears, fault: str) -> tuple[float, float]:
        """Provoke the fault; the moments of it and of the client's callback."""
        assert ears.session is not None
        provoke, code = FAULTS[fault]
        moment = await provoke(ears.session, ears)
        await ears.until("session_error", lambda: ears.told_at is not None)
        assert ears.told_at is not None
        if ears.code != code:
            raise SystemExit(f"{fault}: the client was told {ears.code}, not {code}")
        return moment, ears.told_at

    async def data_session(self, deployed: Deployed, fault: str) -> None:
        async with self.client(deployed) as ears:
            await asyncio.sleep(BETWEEN_SECONDS)
            moment, told = await self.fail(ears, fault)
            assert ears.session is not None
            stored = await self._stored(deployed.project_id, ears.session.session_id)
            await ears.session.closed
        self.note(f"{fault}/client", told - moment)
        self.note(f"{fault}/stored", stored - moment)

    async def voice_sessions(self, deployed: Deployed, fault: str, count: int) -> None:
        """Some sessions that idle together and fail one after the other."""
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(self.client(deployed)) for _ in range(count)]
            await asyncio.sleep(IDLE_SECONDS)
            for ears in clients:
                moment, told = await self.fail(ears, fault)
                audible = await ears.sound_after(moment)
                self.note(f"{fault}/client_voice", told - moment)
                self.note(f"{fault}/audible", audible - moment)
                assert ears.session is not None
                await ears.session.close()
                await asyncio.sleep(BETWEEN_SECONDS)

    async def _stored(self, project_id: str, session_id: str) -> float:
        """When the API first showed the session's error."""
        while True:
            if await self._operator.errors(project_id, session_id):
                return time.monotonic()
            await asyncio.sleep(ASK_EVERY_SECONDS)

    def note(self, measure: str, seconds: float) -> None:
        self.figures.setdefault(measure, []).append(seconds * 1000)


async def measure(sessions: int) -> dict[str, dict[str, float]]:
    """p50 and p99, in milliseconds, of the floor and of everything that follows a fault."""
    floor, paused = await measure_floor()
    async with fresh_platform() as running, Operator(running) as operator:
        bench = Bench(running, operator)
        data, voice = await bench.deploy("data"), await bench.deploy("voice")
        for fault in FAULTS:
            for _ in range(WARM_UP_SESSIONS):
                await bench.data_session(data, fault)
            await bench.voice_sessions(voice, fault, 1)
        bench.figures.clear()
        for _ in range(sessions):
            for fault in FAULTS:
                await bench.data_session(data, fault)
        left = max(VOICE_AT_ONCE, sessions // 3)
        while left > 0:
            for fault in FAULTS:
                await bench.voice_sessions(voice, fault, min(left, VOICE_AT_ONCE))
            left -= VOICE_AT_ONCE
    for before, after in zip((floor, paused), await measure_floor(), strict=True):
        before += after
    return {
        name: {
            "p50": round(statistics.median(taken), 2),
            "p99": round(percentile(taken, 0.99), 2),
            "count": len(taken),
        }
        for name, taken in {
            "floor/round_trip": floor,
            "floor/after_pause": paused,
            **bench.figures,
        }.items()
    }


async def measure_floor() -> tuple[list[float], list[float]]:
    """Half of the floor's round trips: back to back, and after pauses."""
    return (
        await measure_round_trip(FLOOR_TRIPS // 2),
        await measure_round_trip(PAUSED_TRIPS // 2, pause=BETWEEN_SECONDS),
    )


LABELS = {
    "floor/round_trip": "floor: bare data channel, round trip",
    "floor/after_pause": "floor, paused: each after 50 ms",
    "handler_raises/client": "handler raises → on_session_error",
    "handler_raises/client_voice": "  the same in a voice session",
    "handler_raises/audible": "  → crash speech audible",
    "handler_raises/stored": "  → row in the API",
    "process_killed/client": "process killed → on_session_error",
    "process_killed/client_voice": "  the same in a voice session",
    "process_killed/audible": "  → crash speech audible",
    "process_killed/stored": "  → row in the API",
    "session_start": "start_session → credentials",
}
FLOORS = ("floor/round_trip", "floor/after_pause")
WITH_AIM = ("handler_raises/client", "process_killed/client")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=30, help="per fault in data mode; a third with voice")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.sessions))
    ratios = {
        name: {floor: round(figures[name]["p50"] / figures[floor]["p50"], 2) for floor in FLOORS}
        for name in WITH_AIM
    }
    machine = f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}"
    if arguments.json:
        print(json.dumps({"machine": machine, "ms": figures, "ratio_to": ratios, "aim": AIM}))
        return 0
    table = Table(title=f"From an agent's fault, in milliseconds ({machine})")
    table.add_column("", min_width=37)
    for column in ("p50", "p99", "n", "/ floor", "/ paused"):
        table.add_column(column, justify="right")
    for name, label in LABELS.items():
        row = figures[name]
        shown = [f"{ratio:.1f}" for ratio in ratios.get(name, {}).values()]
        table.add_row(label, f"{row['p50']:.2f}", f"{row['p99']:.2f}", f"{row['count']:.0f}", *shown)
    table.caption = f"The last two columns: p50 by the floors' p50. The aim: at most {AIM:g}."
    Console(width=100).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
