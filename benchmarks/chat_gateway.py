"""What chat conversations cost the platform, and how long an agent's message takes to every open socket.

    python benchmarks/chat_gateway.py [--sockets 1 8 32] [--talking 10 20 40] [--idle 10 30] [--apart]
        [--json]

Runs a real platform (`voicethere up`; with `--apart` each role by itself on Redis and PostgreSQL, which both
sync what they accept) with real sockets in this process, which shares its cores.

- Fan-out: an agent sends messages at a steady pace into one conversation that N sockets read; measured from
  the agent's call to each socket's reader, both by the machine's one monotonic clock. Every message is
  committed to the database before any socket gets it. The floor is N = 1; by default N is at most 32.
- Cost: processor time and memory as conversations grow; the floor is the platform without any. Talking: each
  gets a prompt every four seconds and the agent streams twenty words in answer, in a second. Idle: a socket
  is open and a session runs. One more conversation costs the slope (Theil-Sen) over the steps. What follows
  is arithmetic: how many fit 0.8 of a core that does everything, one process of each kind, and a gigabyte.

Takes about a minute and a half.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import msgspec
import psutil
from channel_round_trip import percentile
from chat_state import load
from session_costs import CAPACITY, MEGABYTE, SETTLE_SECONDS, SHARE_FOR_SESSIONS, parts_of, slope
from websockets.asyncio.client import ClientConnection, connect

from voicethere.testing.distributed import Distributed, distributed_platform
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform, fresh_platform

BEATS = 100
PACE_SECONDS = 4.0
MEASURE_SECONDS = 8.0
TOGETHER = 4
PATIENCE_SECONDS = 60.0
NOTHING_MS_PER_SECOND = 0.1
"""What costs less was not told from the noise: no limit follows from it."""

AGENT = b"""
import asyncio
import time

from voicethere.agent import define_agent, parse_chat_text, send_to_client, speak


async def words():
    for number in range(20):
        await asyncio.sleep(0.05)
        yield f"word{number} "


async def on_data_channel_message(ctx):
    text = parse_chat_text(ctx.message)
    if text and text.startswith("beat "):
        for number in range(int(text[5:])):
            await asyncio.sleep(0.03)
            send_to_client(ctx.session_id, {"beat": time.monotonic()})
    elif text == "talk":
        await speak(ctx.session_id, words())
    elif text == "hello":
        send_to_client(ctx.session_id, {"hello": True})


define_agent(on_data_channel_message=on_data_channel_message)
"""

Parts = dict[str, list[psutil.Process]]


class Platform(msgspec.Struct, frozen=True):
    """Where chats and the control plane are served, and the processes by what they are."""

    chats: RunningPlatform
    control: RunningPlatform
    parts: Callable[[], Parts]


@contextlib.asynccontextmanager
async def one_process() -> AsyncIterator[Platform]:
    options = [f"--capacity={CAPACITY}", "--log-level=WARNING"]
    async with fresh_platform(options) as running:

        def parts() -> Parts:
            found = parts_of(running.runner_pid)
            rest = found["zygote"] + found["speech"]
            return {
                "services": found["platform"],
                "runner": found["runner"],
                "agents": found["agents"],
                "rest": rest,
            }

        yield Platform(running, running, parts)


@contextlib.asynccontextmanager
async def roles_apart() -> AsyncIterator[Platform]:
    async with distributed_platform(
        sessions=1,
        gateways=1,
        workers=1,
        runners=1,
        durable=True,
        settings={"log_level": "WARNING", "sessions": {"no_chat": True}},
        runner_options=[f"--capacity={CAPACITY}"],
    ) as running:

        def parts() -> Parts:
            return parts_apart(running)

        yield Platform(running.chat_gateway, running.control_plane, parts)


def parts_apart(running: Distributed) -> Parts:
    found = parts_of(running.runners[0].pid)
    others = [*running.sessions, *running.workers, *running.controls]
    postgres = psutil.Process(running.postgres.pid)
    return {
        "gateway": [psutil.Process(running.gateways[0].pid)],
        "runner": found["runner"],
        "agents": found["agents"],
        "PostgreSQL": [postgres, *postgres.children()],
        "Redis": [psutil.Process(running.redis.pid)],
        "rest": [*found["zygote"], *found["speech"], *(psutil.Process(role.pid) for role in others)],
    }


class Chat:
    """The base of one deployed agent's conversations."""

    def __init__(self, running: RunningPlatform, deployed: Deployed, http: httpx.AsyncClient) -> None:
        self._base = f"{running.base_url}/c/{deployed.client_key}"
        self._http = http

    async def prompt(self, conv_id: str, text: str) -> None:
        answer = await self._http.post(f"{self._base}/chat", json={"conv_id": conv_id, "prompt": text})
        if not answer.is_success:
            raise SystemExit(f"the prompt was not accepted: HTTP {answer.status_code}: {answer.text[:200]}")

    @contextlib.asynccontextmanager
    async def socket(self, conv_id: str) -> AsyncIterator[ClientConnection]:
        async with connect(f"ws{self._base.removeprefix('http')}/ws?conv_id={conv_id}") as socket:
            yield socket


async def said(socket: ClientConnection, key: str) -> Any:
    """The value of `key` in the agent's next message that has it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            text = await socket.recv()
            event = json.loads(text)["event"]
            if event["type"] == "agent.message" and key in event["data"]:
                return event["data"][key]


async def fan_out(chat: Chat, sockets: int) -> dict[str, float]:
    """Milliseconds from the agent's call to each reader, over all messages and all sockets."""
    conv_id = secrets.token_hex(16)
    took: list[float] = []
    last: list[float] = []  # of each message, the last socket's

    async def listen(socket: ClientConnection, waits: list[float]) -> None:
        for _ in range(BEATS):
            sent = await said(socket, "beat")
            waits.append((time.monotonic() - sent) * 1000)

    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(chat.socket(conv_id)) for _ in range(sockets)]
        await chat.prompt(conv_id, "hello")
        for socket in opened:
            await said(socket, "hello")
        waits: list[list[float]] = [[] for _ in opened]
        async with asyncio.TaskGroup() as group:
            for socket, own in zip(opened, waits, strict=True):
                group.create_task(listen(socket, own))
            await chat.prompt(conv_id, f"beat {BEATS}")
        for row in zip(*waits, strict=True):
            took.extend(row)
            last.append(max(row))
    return {
        "p50": round(statistics.median(took), 2),
        "p99": round(percentile(took, 0.99), 2),
        "last_socket_p50": round(statistics.median(last), 2),
        "last_socket_p99": round(percentile(last, 0.99), 2),
    }


async def one_conversation(chat: Chat, *, talking: bool, started: asyncio.Event) -> None:
    conv_id = secrets.token_hex(16)
    async with chat.socket(conv_id) as socket:
        await chat.prompt(conv_id, "hello")
        await said(socket, "hello")
        started.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(drain(socket))
            while talking:
                await asyncio.sleep(PACE_SECONDS * (0.75 + secrets.randbelow(500) / 1000))
                await chat.prompt(conv_id, "talk")


async def drain(socket: ClientConnection) -> None:
    async for _ in socket:
        pass


async def look(platform: Platform) -> dict[str, dict[str, float]]:
    """By part: milliseconds of processor a second over the next seconds, and megabytes."""
    await asyncio.sleep(SETTLE_SECONDS)
    before, began = await asyncio.to_thread(used, platform.parts()), time.monotonic()
    await asyncio.sleep(MEASURE_SECONDS)
    parts = platform.parts()
    after, took = await asyncio.to_thread(used, parts), time.monotonic() - began
    memory = await asyncio.to_thread(megabytes, parts)
    ms = {part: round((after[part] - before[part]) / took * 1000, 1) for part in after}
    return {part: {"cpu": ms[part], "mb": round(memory[part], 1)} for part in parts}


def used(parts: Parts) -> dict[str, float]:
    seconds = dict.fromkeys(parts, 0.0)
    for part, processes in parts.items():
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds[part] += times.user + times.system
    return seconds


def megabytes(parts: Parts) -> dict[str, float]:
    held = dict.fromkeys(parts, 0.0)
    for part, processes in parts.items():
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                held[part] += process.memory_full_info().pss / MEGABYTE
    return held


async def cost(chat: Chat, platform: Platform, sizes: Sequence[int], *, talking: bool) -> dict[str, Any]:
    """The platform's figures at each size, and what one more conversation costs."""
    steps: list[dict[str, Any]] = []
    tasks: list[asyncio.Task[None]] = []
    room = asyncio.Semaphore(TOGETHER)

    async def start() -> None:
        started = asyncio.Event()
        async with room:
            task = asyncio.create_task(one_conversation(chat, talking=talking, started=started))
            tasks.append(task)
            waiter = asyncio.create_task(started.wait())
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            if task.done():
                task.result()

    try:
        for size in (0, *sizes):
            await asyncio.gather(*(start() for _ in range(size - len(tasks))))
            psutil.cpu_percent()
            held = await look(platform)
            busy = psutil.cpu_percent()
            steps.append({"conversations": size, "held": held, "busy_percent": round(busy)})
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def each(part: str, unit: str) -> float:
        return slope([(step["conversations"], step["held"][part][unit]) for step in steps])

    cpu = {part: round(each(part, "cpu"), 2) for part in steps[0]["held"]}
    memory = sum(each(part, "mb") for part in steps[0]["held"])
    everything = sum(cpu.values())
    room_of = {"0.8 of a core that does everything": everything}
    room_of |= {
        f"0.8 of one {part} process": cpu.get(part, 0.0) for part in ("services", "gateway", "runner")
    }
    fit = {name: SHARE_FOR_SESSIONS * 1000 / ms for name, ms in room_of.items() if ms > NOTHING_MS_PER_SECOND}
    fit["a gigabyte"] = 1024 / max(memory, 0.001)
    return {
        "steps": steps,
        "cpu_ms_per_second": round(everything, 2),
        "of_it": cpu,
        "megabytes": round(memory, 2),
        "conversations_in": {name: round(count) for name, count in fit.items()},
    }


async def measure(
    sockets: Sequence[int], talking: Sequence[int], idle: Sequence[int], *, apart: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {"load": load()}
    settings = {"idle_timeout_enabled": False}
    async with contextlib.AsyncExitStack() as stack:
        platform = await stack.enter_async_context(roles_apart() if apart else one_process())
        operator = await stack.enter_async_context(Operator(platform.control))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE_SECONDS))
        deployed = await operator.deploy(AGENT, name="Chat", mode="data", session_settings=settings)
        chat = Chat(platform.chats, deployed, http)
        await fan_out(chat, 1)  # what is made once is not measured
        found["fan_out_ms"] = {str(count): await fan_out(chat, count) for count in sockets}
        found["idle"] = await cost(chat, platform, idle, talking=False)
        found["talking"] = await cost(chat, platform, talking, talking=True)
    found["load_after"] = load()
    return found


def show(found: dict[str, Any]) -> None:
    print(f"load before: {found['load']}; after: {found['load_after']}")
    print("\nagent -> sockets, ms")
    for count, row in found["fan_out_ms"].items():
        print(f"  {count:>4} sockets: " + "  ".join(f"{name} {value}" for name, value in row.items()))
    for kind in ("idle", "talking"):
        row = found[kind]
        print(f"\n{kind} conversations")
        for step in row["steps"]:
            held = step["held"]
            shown = ", ".join(f"{part} {figures['cpu']:.0f}" for part, figures in held.items())
            memory = sum(figures["mb"] for figures in held.values())
            print(
                f"  {step['conversations']:>4}: ms of processor a second: {shown}; {memory:.0f} MB"
                f" (the machine was {step['busy_percent']} % busy)"
            )
        of_it = ", ".join(f"{part} {ms}" for part, ms in row["of_it"].items())
        print(f"  each: {row['cpu_ms_per_second']} ms/s ({of_it}), {row['megabytes']} MB")
        for limit, count in sorted(row["conversations_in"].items(), key=lambda pair: pair[1]):
            print(f"  {count:>6} in {limit}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--sockets", type=int, nargs="+", default=[1, 8, 32], help="readers of a conversation"
    )
    parser.add_argument("--talking", type=int, nargs="+", default=[10, 20, 40], help="sizes to measure")
    parser.add_argument("--idle", type=int, nargs="+", default=[10, 30], help="sizes to measure")
    parser.add_argument("--apart", action="store_true", help="each role by itself, on Redis and PostgreSQL")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.sockets, arguments.talking, arguments.idle, apart=arguments.apart))
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
