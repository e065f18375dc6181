"""How long an error takes from `put` on a Redis Stream to its committed row in PostgreSQL, at a fixed rate.

    python benchmarks/put_to_row.py [--rate 10000] [--seconds 4] [--rounds 3] [--json]

Errors of about 2 KiB, everything durable (fsync, appendfsync always), one producer, and a worker in a process
of its own. In turns with the floor: the same producer, and a process that does no more than it must, one
thing after the other (XREADGROUP, COPY into the same table, XACK and XDEL): no session is looked up, no
duplicate expected, nothing tried again. The aim: p99 under 15 ms at 10,000 per second.

Producer, Redis, worker and PostgreSQL need about one and a half cores for that, and whatever else the machine
does shows at once, in both. `machine_busy` is the share of all cores that was used, by whomever: near 1 the
figures tell of the machine. Starts its own servers and takes about a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import select
import statistics
import sys
import time
from contextlib import closing
from typing import Any

import psutil
import psycopg
import redis
import structlog
from queue_to_row import new_items, open_store

from voicethere.adapters.queue import RedisErrorQueue
from voicethere.adapters.store import CommittedBatch, Store
from voicethere.adapters.store.error_rows import error_row
from voicethere.adapters.store.tables import session_errors
from voicethere.roles.sessions.worker import Worker
from voicethere.testing.postgres_server import PostgresServer, postgres_server
from voicethere.testing.redis_server import redis_server
from voicethere.wire.queue import ErrorItem, QueueItem, decode

BATCH = 500
TICK_SECONDS = 0.002
WARM_UP_SECONDS = 1.0
STREAM = "voicethere:session-errors"
GROUP = "workers"
TYPES = ["text"] * 9 + ["bool", "text", "text", "int8", "int8"]


def say(rows: int) -> None:
    print(rows, time.monotonic(), flush=True)


async def work(redis_url: str, url: str) -> None:
    """The worker's process: says when how many rows were committed, until its input ends."""
    store = await Store.open(url)
    queue = RedisErrorQueue(redis_url)

    def committed(batch: CommittedBatch) -> None:
        say(batch.inserted)

    worker = Worker(queue, store, batch=BATCH, on_committed=committed)
    gc.freeze()  # what was loaded is not looked through again and again
    running = asyncio.create_task(worker.run())
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await worker.stop()
    await running
    await queue.aclose()
    await store.aclose()


def work_barely(redis_url: str, url: str) -> None:
    """The floor's process."""
    names = ", ".join(column.name for column in session_errors.columns)
    with (
        closing(redis.Redis.from_url(redis_url, protocol=2)) as client,
        closing(psycopg.connect(url)) as connection,
    ):
        client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
        gc.freeze()
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            reply: Any = client.xreadgroup(GROUP, "floor", {STREAM: ">"}, count=BATCH, block=100)
            if not reply:
                continue
            now_ms = int(time.time() * 1000)
            entries = reply[0][1]
            rows = []
            for _, fields in entries:
                item = decode(fields[b"item"])
                assert isinstance(item, ErrorItem)
                rows.append(error_row(item.record, now_ms))
            copied = connection.cursor()
            with copied, copied.copy(f"COPY session_errors ({names}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(TYPES)
                for row in rows:
                    copy.write_row(row)
            connection.commit()
            say(len(rows))
            ids = [entry[0] for entry in entries]
            with client.pipeline(transaction=True) as commands:
                commands.xack(STREAM, GROUP, *ids)
                commands.xdel(STREAM, *ids)
                commands.execute()


async def put_all(
    queue: RedisErrorQueue, items: list[QueueItem], rate: int
) -> tuple[list[float], list[float]]:
    """When each was put (monotonic), and how many seconds each took to be accepted."""
    put_at: list[float] = []
    accepted: list[float] = []

    async def put(item: QueueItem) -> None:
        began = time.monotonic()
        put_at.append(began)
        await queue.put([item])
        accepted.append(time.monotonic() - began)

    began = time.monotonic()
    putting: set[asyncio.Task[None]] = set()
    for number, item in enumerate(items):
        due = began + number / rate
        if due - time.monotonic() > TICK_SECONDS:
            await asyncio.sleep(TICK_SECONDS)
        putting.add(task := asyncio.create_task(put(item)))
        task.add_done_callback(putting.discard)
    await asyncio.gather(*putting)
    return put_at, accepted


async def run(
    server: PostgresServer, database: str, kind: str, rate: int, seconds: float
) -> dict[str, float]:
    """One worker stores in the order of the puts: the n-th row is that of the n-th put."""
    await server.execute(f"CREATE DATABASE {database}")
    store, project = await open_store(server.url_of(database))
    await store.aclose()
    async with redis_server(appendonly=True, appendfsync="always") as stream:
        queue = RedisErrorQueue(stream.url)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--work", kind, stream.url, server.url_of(database)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        items = new_items(project, int(rate * (seconds + WARM_UP_SECONDS)))
        assert await child.stdout.readline() == b"ready\n"
        gc.collect()
        gc.freeze()  # the producer, too, is to be measured without the collector looking through all items
        process = psutil.Process(child.pid)
        cpu_before = cpu_seconds(process)
        psutil.cpu_percent()
        began = time.monotonic()
        put_at, accepted = await put_all(queue, items, rate)
        took = time.monotonic() - began
        committed: list[float] = []
        batches = 0
        async with asyncio.timeout(60):
            while len(committed) < len(put_at):
                count, at = (await child.stdout.readline()).split()
                committed += [float(at)] * int(count)
                batches += 1
        busy = psutil.cpu_percent()
        cpu = cpu_seconds(process) - cpu_before
        child.stdin.close()
        await child.wait()
        await queue.aclose()
    gc.unfreeze()
    warm = int(rate * WARM_UP_SECONDS)
    to_row = [end - start for start, end in zip(put_at, committed, strict=True)][warm:]
    return {
        "put_per_second": round(len(put_at) / took),
        "accepted_p50_ms": percentile(accepted[warm:], 0.5),
        "accepted_p99_ms": percentile(accepted[warm:], 0.99),
        "committed_p50_ms": percentile(to_row, 0.5),
        "committed_p99_ms": percentile(to_row, 0.99),
        "worker_cpu_us_per_error": round(cpu / len(put_at) * 1e6, 1),
        "errors_per_batch": round(len(put_at) / batches),
        "machine_busy": round(busy / 100, 2),
    }


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def percentile(seconds: list[float], share: float) -> float:
    """In milliseconds."""
    return round(sorted(seconds)[int(len(seconds) * share)] * 1000, 2)


async def measure(rate: int, seconds: float, rounds: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {"floor": [], "worker": []}
    async with postgres_server(durable=True) as server:
        for number in range(rounds):
            for kind, runs in found.items():
                runs.append(await run(server, f"{kind}{number}", kind, rate, seconds))
    medians = {
        kind: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for kind, runs in found.items()
    }
    return {
        "asked_per_second": rate,
        **medians,
        "worker_over_floor": {
            name: round(
                statistics.median(
                    ours[name] / bare[name]
                    for ours, bare in zip(found["worker"], found["floor"], strict=True)
                ),
                2,
            )
            for name in ("committed_p50_ms", "committed_p99_ms", "worker_cpu_us_per_error")
        },
        "rounds": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=int, default=10_000, help="errors put per second")
    parser.add_argument("--seconds", type=float, default=4.0, help="for how long, after a second to warm up")
    parser.add_argument("--rounds", type=int, default=3, help="of floor and worker in turns")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    if arguments.work:
        kind, redis_url, url = arguments.work
        if kind == "floor":
            work_barely(redis_url, url)
        else:
            asyncio.run(work(redis_url, url))
        return
    found = asyncio.run(measure(arguments.rate, arguments.seconds, arguments.rounds))
    if arguments.json:
        print(json.dumps(found))
        return
    for number, (bare, ours) in enumerate(zip(*found.pop("rounds").values(), strict=True)):
        print(f"round {number} floor     {json.dumps(bare)}")
        print(f"round {number} worker    {json.dumps(ours)}")
    for name, values in found.items():
        print(f"{name:17} {json.dumps(values)}")


if __name__ == "__main__":
    main()
