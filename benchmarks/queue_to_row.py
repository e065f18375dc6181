"""How fast errors become rows, next to what each database takes alone in the same run.

    python benchmarks/queue_to_row.py [--rate 10000] [--seconds 5] [--rounds 7] [--json]

Three measures, rows of about 2 KiB, everything durable (fsync, synchronous=FULL, appendfsync always):

- PostgreSQL: the store's `commit_batch` against bare binary COPY into the same table (same indexes, same
  foreign key), batches of 1,000, in turns; all rows new, and with 1 % that were stored before. The aims: 55 %
  and 45 %.
- SQLite: the same against bare `executemany` into the same table. The aim: 40 %.
- From `put` on a Redis Stream to the committed row in PostgreSQL, at a fixed rate, by a worker in a process
  of its own. The aim: p99 under 15 ms at 10,000 per second.

Starts its own Redis and PostgreSQL and takes about a minute. Every figure is of this machine, this disk and
this moment: compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import structlog

from voicethere.adapters.queue import RedisErrorQueue
from voicethere.adapters.store import CommittedBatch, Store
from voicethere.adapters.store.error_rows import error_row
from voicethere.adapters.store.tables import session_errors
from voicethere.roles.sessions.worker import Worker
from voicethere.testing.postgres_server import PostgresServer, postgres_server
from voicethere.testing.queue import sample_error
from voicethere.testing.redis_server import redis_server
from voicethere.wire.queue import ErrorItem, QueueItem

STACK_LINES = 22
BATCH = 1_000
BATCHES = 8
DUPLICATES = BATCH // 100
TICK_SECONDS = 0.002
WARM_UP_SECONDS = 1.0

Batches = list[list[QueueItem]]


def some_stacks() -> list[str]:
    """Stack traces of about 1.6 KiB that are not one line again and again: databases compress them."""
    chance = random.Random(1)
    return [
        "Traceback (most recent call last):\n"
        + "".join(
            f'  File "/app/{chance.getrandbits(64):016x}.py", line {chance.randrange(999)}, in handle_it\n'
            f"    {chance.getrandbits(64):x}\n"
            for _ in range(STACK_LINES)
        )
        for _ in range(200)
    ]


STACKS = some_stacks()


def new_items(project_id: str, count: int) -> list[QueueItem]:
    """Errors of about 2 KiB with ids of their own."""
    record = sample_error("s", project_id).record
    return [
        ErrorItem(
            record=msgspec.structs.replace(record, id=str(uuid.uuid4()), stack=STACKS[number % len(STACKS)])
        )
        for number in range(count)
    ]


def some_batches(project_id: str, *, repeated: int) -> Batches:
    """Batches of which so many items of each were in the one before."""
    batches: Batches = []
    for _ in range(BATCHES):
        fresh = new_items(project_id, BATCH - (repeated if batches else 0))
        batches.append([*(batches[-1][-repeated:] if batches and repeated else []), *fresh])
    return batches


def rows_of(batch: Sequence[QueueItem]) -> list[tuple[Any, ...]]:
    now_ms = int(time.time() * 1000)
    return [error_row(item.record, now_ms) for item in batch if isinstance(item, ErrorItem)]


async def open_store(url: str) -> tuple[Store, str]:
    """A store with one project and its session `s`."""
    store = await Store.open(url)
    project = await store.create_project(org_id=await store.ensure_default_org(), name="P", slug="p")
    await store.create_session(
        session_id="s", project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
    )
    return store, project.id


async def through_the_store(store: Store, batches: Batches) -> float:
    """Rows per second."""
    began = time.perf_counter()
    for batch in batches:
        await store.commit_batch(batch, [])
    return BATCHES * BATCH / (time.perf_counter() - began)


def timed(batches: Batches, insert: Callable[[list[tuple[Any, ...]]], None]) -> float:
    """Rows per second of a bare insert; the rows are made before."""
    rows = [rows_of(batch) for batch in batches]
    began = time.perf_counter()
    for some in rows:
        insert(some)
    return BATCHES * BATCH / (time.perf_counter() - began)


def copy_floor(url: str, batches: Batches) -> float:
    names = ", ".join(column.name for column in session_errors.columns)
    types = ["text"] * 9 + ["bool", "text", "text", "int8", "int8"]

    def insert(rows: list[tuple[Any, ...]]) -> None:
        copied = connection.cursor()
        with copied, copied.copy(f"COPY session_errors ({names}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)
        connection.commit()

    with closing(psycopg.connect(url)) as connection:
        return timed(batches, insert)


def executemany_floor(path: Path, batches: Batches) -> float:
    places = ", ".join("?" * len(session_errors.columns))

    def insert(rows: list[tuple[Any, ...]]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"INSERT INTO session_errors VALUES ({places})", rows)
        connection.execute("COMMIT")

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("foreign_keys=ON", "synchronous=FULL", "wal_autocheckpoint=8000"):
            connection.execute(f"PRAGMA {pragma}")
        return timed(batches, insert)


async def compare(floor_url: str, url: str, floor: Callable[[Batches], float], rounds: int) -> dict[str, Any]:
    """Floor and store in turns, each on a database of its own that grows alike; medians."""
    floor_store, floor_project = await open_store(floor_url)
    store, project = await open_store(url)
    bare, new, repeated = [], [], []
    try:
        for _ in range(rounds + 1):
            bare.append(await asyncio.to_thread(floor, some_batches(floor_project, repeated=0)))
            new.append(await through_the_store(store, some_batches(project, repeated=0)))
            repeated.append(await through_the_store(store, some_batches(project, repeated=DUPLICATES)))
    finally:
        await floor_store.aclose()
        await store.aclose()
    # The first round warms up. Ratios within a round: what else the machine does changes in between.
    pairs = list(zip(bare, new, repeated, strict=True))[1:]
    return {
        "bare_rows_per_second": round(statistics.median(pair[0] for pair in pairs)),
        "store_rows_per_second": round(statistics.median(pair[1] for pair in pairs)),
        "store_with_duplicates_rows_per_second": round(statistics.median(pair[2] for pair in pairs)),
        "ratio": round(statistics.median(pair[1] / pair[0] for pair in pairs), 2),
        "ratio_with_duplicates": round(statistics.median(pair[2] / pair[0] for pair in pairs), 2),
    }


async def postgresql(server: PostgresServer, rounds: int) -> dict[str, Any]:
    for name in ("floor", "ours"):
        await server.execute(f"CREATE DATABASE {name}")
    url = server.url_of("floor")
    return await compare(url, server.url_of("ours"), lambda batches: copy_floor(url, batches), rounds)


async def sqlite(directory: Path, rounds: int) -> dict[str, Any]:
    path = directory / "floor.db"
    return await compare(
        f"sqlite:///{path}",
        f"sqlite:///{directory}/ours.db",
        lambda batches: executemany_floor(path, batches),
        rounds,
    )


async def work(redis_url: str, url: str) -> None:
    """The worker's process: says when how many rows were committed, until its input ends."""
    store = await Store.open(url)
    queue = RedisErrorQueue(redis_url)

    def committed(batch: CommittedBatch) -> None:
        print(batch.inserted, time.monotonic(), flush=True)

    worker = Worker(queue, store, on_committed=committed)
    running = asyncio.create_task(worker.run())
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await worker.stop()
    await running
    await queue.aclose()
    await store.aclose()


async def put_to_row(server: PostgresServer, rate: int, seconds: float) -> dict[str, Any]:
    """One worker stores in the order of the puts: the n-th row is that of the n-th put."""
    await server.execute("CREATE DATABASE paced")
    store, project = await open_store(server.url_of("paced"))
    await store.aclose()
    async with redis_server(appendonly=True, appendfsync="always") as redis:
        queue = RedisErrorQueue(redis.url)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--work", redis.url, server.url_of("paced")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
        items = iter(new_items(project, int(rate * (seconds + WARM_UP_SECONDS))))
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
        took = time.monotonic() - began
        committed: list[float] = []
        async with asyncio.timeout(60):
            while len(committed) < len(put_at):
                count, at = (await child.stdout.readline()).split()
                committed += [float(at)] * int(count)
        child.stdin.close()
        await child.wait()
        await queue.aclose()
    warm = int(rate * WARM_UP_SECONDS)
    return {
        "asked_per_second": rate,
        "put_per_second": round(len(put_at) / took),
        "put_to_accepted": percentiles(accepted[warm:]),
        "put_to_committed": percentiles(
            [end - start for start, end in zip(put_at, committed, strict=True)][warm:]
        ),
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": round(statistics.median(ordered) * 1000, 2),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 2),
    }


async def measure(directory: Path, *, rate: int, seconds: float, rounds: int) -> dict[str, Any]:
    async with postgres_server(durable=True) as server:
        return {
            "postgresql": await postgresql(server, rounds),
            "sqlite": await sqlite(directory, rounds),
            "redis_to_postgresql": await put_to_row(server, rate, seconds),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=int, default=10_000, help="errors put per second")
    parser.add_argument("--seconds", type=float, default=5.0, help="for how long they are put")
    parser.add_argument("--rounds", type=int, default=7, help="of floor and store in turns")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    if arguments.work:
        asyncio.run(work(*arguments.work))
        return
    with tempfile.TemporaryDirectory(prefix="voicethere-rows-", dir=Path.cwd()) as directory:
        found = asyncio.run(
            measure(Path(directory), rate=arguments.rate, seconds=arguments.seconds, rounds=arguments.rounds)
        )
    if arguments.json:
        print(json.dumps(found))
        return
    for name, values in found.items():
        print(f"{name:20} {json.dumps(values)}")


if __name__ == "__main__":
    main()
