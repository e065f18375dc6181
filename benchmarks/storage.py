"""How fast errors are accepted and stored, next to what SQLite can do alone in the same run.

    python benchmarks/storage.py [--json]

Takes under half a minute. Every figure is of this machine, this disk and this moment: compare the ratios.
Rows are about 2 KiB, and everything is durable (WAL, synchronous=FULL) on both sides.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import structlog

from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.adapters.store import CommittedBatch, Store
from voicethere.roles.sessions.worker import Worker
from voicethere.testing.queue import sample_error
from voicethere.wire.queue import ErrorItem, encode

STACK = 'Traceback (most recent call last):\n  File "agent.py", line 12, in handle\n' * 18
ROWS = 20_000
PRODUCERS = 400
SINGLES = 300
PACED_RATE = 2_000
PACED_SECONDS = 3.0
LOW_RATE = 50
LOW_SECONDS = 3.0


def item(session_id: str, project_id: str) -> ErrorItem:
    return sample_error(session_id, project_id, stack=STACK)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": round(statistics.median(ordered) * 1000, 3),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 3),
    }


def raw_floor(directory: Path) -> dict[str, object]:
    """Bare sqlite3: batches of 1,000 rows, and one row at a time."""
    data = [encode(item("s", "p")) for _ in range(ROWS)]
    with closing(sqlite3.connect(directory / "raw.db", isolation_level=None)) as connection:
        for pragma in ("page_size=8192", "journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=8000"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(
            "CREATE TABLE items (position INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL)"
        )
        began = time.perf_counter()
        for start in range(0, ROWS, 1000):
            connection.execute("BEGIN IMMEDIATE")
            rows = ((row,) for row in data[start : start + 1000])
            connection.executemany("INSERT INTO items (data) VALUES (?)", rows)
            connection.execute("COMMIT")
        rate = ROWS / (time.perf_counter() - began)
        singles = []
        for row in data[:SINGLES]:
            began = time.perf_counter()
            connection.execute("INSERT INTO items (data) VALUES (?)", (row,))
            singles.append(time.perf_counter() - began)
    return {"rows_per_second": round(rate), "single_row": percentiles(singles)}


async def many_at_once(queue: EmbeddedErrorQueue) -> dict[str, object]:
    """Puts of one item from many tasks that wait for each acknowledgement."""
    items = [item("s", "p") for _ in range(ROWS)]
    left = iter(items)
    latencies: list[float] = []

    async def produce() -> None:
        for one in left:
            began = time.perf_counter()
            await queue.put([one])
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
    return {"puts_per_second": round(ROWS / (time.perf_counter() - began)), **percentiles(latencies)}


async def paced(rate: float, seconds: float, put: Callable[[], Awaitable[float]]) -> list[float]:
    """Call `put` at a rate, however long each takes; what the calls returned."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
        tasks.append(asyncio.ensure_future(put()))
    return await asyncio.gather(*tasks)


async def put_latencies(queue: EmbeddedErrorQueue) -> tuple[dict[str, float], dict[str, float]]:
    async def put() -> float:
        one = item("s", "p")
        began = time.perf_counter()
        await queue.put([one])
        return time.perf_counter() - began

    singles = [await put() for _ in range(SINGLES)]
    return percentiles(singles), percentiles(await paced(PACED_RATE, PACED_SECONDS, put))


async def to_rows(directory: Path, *, same_process: bool) -> dict[str, object]:
    """From `put` to the committed row at a low rate, then a backlog drained through the worker.

    `same_process=False` puts through another instance, which wakes the worker only through the file, as
    another process does.
    """
    store = await Store.open(f"sqlite:///{directory}/voicethere.db")
    project = await store.create_project(org_id=await store.ensure_default_org(), name="P", slug="p")
    await store.create_session(
        session_id="s", project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
    )
    queue = EmbeddedErrorQueue(directory / "queue.db")
    producer = queue if same_process else EmbeddedErrorQueue(directory / "queue.db")
    stored = 0
    waiting: list[tuple[int, asyncio.Future[None]]] = []

    def committed(batch: CommittedBatch) -> None:
        nonlocal stored
        stored += batch.inserted
        for count, future in waiting:
            if count <= stored and not future.done():
                future.set_result(None)
        waiting[:] = [entry for entry in waiting if not entry[1].done()]

    put_count = 0

    async def put() -> float:
        nonlocal put_count
        put_count += 1
        mine = put_count
        row = asyncio.get_running_loop().create_future()
        waiting.append((mine, row))
        began = time.perf_counter()
        await producer.put([item("s", project.id)])
        await row
        return time.perf_counter() - began

    worker = Worker(queue, store, on_committed=committed)
    running = asyncio.create_task(worker.run())
    latency = percentiles(await paced(LOW_RATE, LOW_SECONDS, put))
    await worker.stop()
    await running
    result: dict[str, object] = {"put_to_row": latency}
    if same_process:
        backlog = [item("s", project.id) for _ in range(ROWS // 2)]
        await queue.put(backlog)
        drainer = Worker(queue, store)
        began = time.perf_counter()
        running = asyncio.create_task(drainer.run())
        await asyncio.sleep(0)
        await drainer.stop()
        await running
        result["drained_rows_per_second"] = round(len(backlog) / (time.perf_counter() - began))
    if producer is not queue:
        await producer.aclose()
    await queue.aclose()
    await store.aclose()
    return result


async def measure(directory: Path) -> dict[str, object]:
    floor = raw_floor(directory)
    queue = EmbeddedErrorQueue(directory / "queue.db")
    many = await many_at_once(queue)
    single, at_rate = await put_latencies(queue)
    await queue.aclose()
    here = await to_rows(directory / "one", same_process=True)
    across = await to_rows(directory / "two", same_process=False)
    return {
        "raw_sqlite": floor,
        "queue_many_producers": many,
        "queue_one_producer": single,
        f"queue_at_{PACED_RATE}_per_second": at_rate,
        "worker_same_process": here,
        "worker_other_process": across,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    with tempfile.TemporaryDirectory(prefix="voicethere-storage-", dir=Path.cwd()) as directory:
        found = asyncio.run(measure(Path(directory)))
    if arguments.json:
        print(json.dumps(found))
        return
    for name, values in found.items():
        print(f"{name:28} {json.dumps(values)}")
    raw = found["raw_sqlite"]
    many = found["queue_many_producers"]
    assert isinstance(raw, dict)
    assert isinstance(many, dict)
    print(f"{'queue / raw SQLite':28} {many['puts_per_second'] / raw['rows_per_second']:.2f}")


if __name__ == "__main__":
    main()
