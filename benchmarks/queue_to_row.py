"""How fast errors become rows, next to what each database takes alone in the same run.

    python benchmarks/queue_to_row.py [--rounds 7] [--json]

Two measures, rows of about 2 KiB, everything durable (fsync, synchronous=FULL):

- PostgreSQL: the store's `commit_batch` against bare binary COPY into the same table (same indexes, same
  foreign key), batches of 1,000, in turns; all rows new, and with 1 % that were stored before. The aims: 55 %
  and 45 %.
- SQLite: the same against bare `executemany` into the same table. The aim: 40 %.

How long an error takes from the queue to its row is what `put_to_row.py` measures. Starts its own PostgreSQL
and takes about a minute. Every figure is of this machine, this disk and this moment: compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
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

from voicethere.adapters.store import Store
from voicethere.adapters.store.error_rows import error_row
from voicethere.adapters.store.tables import session_errors
from voicethere.testing.postgres_server import PostgresServer, postgres_server
from voicethere.testing.queue import sample_error
from voicethere.wire.queue import ErrorItem, QueueItem

STACK_LINES = 22
BATCH = 1_000
BATCHES = 8
DUPLICATES = BATCH // 100

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


async def measure(directory: Path, *, rounds: int) -> dict[str, Any]:
    async with postgres_server(durable=True) as server:
        return {
            "postgresql": await postgresql(server, rounds),
            "sqlite": await sqlite(directory, rounds),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7, help="of floor and store in turns")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    with tempfile.TemporaryDirectory(prefix="voicethere-rows-", dir=Path.cwd()) as directory:
        found = asyncio.run(measure(Path(directory), rounds=arguments.rounds))
    if arguments.json:
        print(json.dumps(found))
        return
    for name, values in found.items():
        print(f"{name:20} {json.dumps(values)}")


if __name__ == "__main__":
    main()
