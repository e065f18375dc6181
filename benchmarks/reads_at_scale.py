"""How long a page of errors takes to read in a small table and in a big one.

    python benchmarks/reads_at_scale.py [--rows 5000000] [--reads 400] [--json]

One project with 1,000 errors and one with 5,000,000, in sessions of ten, each in a database of its own, on
PostgreSQL and on SQLite. Measured through the store: the newest 20 of the project, 20 from its middle, and
the errors of one session, chosen anew each time. The aim: the big table within 1.5 times the small, at p50.

Rows are short here (their texts do not change which rows are looked up), and the databases are filled
without the store. Takes some minutes and about 5 GB of disk.
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
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from voicethere.adapters.store import Store, cursors
from voicethere.testing.postgres_server import PostgresServer, postgres_server

SMALL = 1_000
PER_SESSION = 10
STEP = 7_919
"""Prime: the n-th id belongs to the (n * STEP)-th moment, so that time and ids are not in one order."""
FIRST_MS = 1_750_000_000_000
PAGE = 20

INDEXES = {
    "ix_session_errors_project_newest": "(project_id, occurred_at_ms DESC, id DESC)",
    "ix_session_errors_session_oldest": "(project_id, session_id, occurred_at_ms, id)",
}


def filling(project: str, rows: int, series: str, text: str) -> str:
    """The statement that fills the table from numbers `n`; in the order of ids, which is quickest."""
    return f"""
        INSERT INTO session_errors
        SELECT {text}, '{project}', 's' || ((n * {STEP} % {rows}) / {PER_SESSION}), NULL, 'agent',
               'AGENT_HANDLER_FAILED', 'ValueError: no such order', 'Sorry, something went wrong.',
               'Traceback (most recent call last): ...', false, NULL, '{{}}',
               {FIRST_MS} + n * {STEP} % {rows}, {FIRST_MS}
        FROM {series}
    """


async def new_project(url: str) -> str:
    store = await Store.open(url)
    project = await store.create_project(org_id=await store.ensure_default_org(), name="P", slug="p")
    await store.aclose()
    return project.id


async def fill_postgresql(server: PostgresServer, rows: int) -> tuple[str, str]:
    name = f"rows_{rows}"
    await server.execute(f"CREATE DATABASE {name}")
    project = await new_project(server.url_of(name))
    fill = filling(project, rows, f"generate_series(0, {rows - 1}) AS n", "lpad(to_hex(n), 32, '0')")
    statements = [f"DROP INDEX {index}" for index in INDEXES]
    # Without the check of the foreign key, which takes most of the time.
    statements += ["SET session_replication_role = replica", fill.replace("n *", "n::bigint *")]
    statements += [f"CREATE INDEX {index} ON session_errors {columns}" for index, columns in INDEXES.items()]
    await server.execute("; ".join(statements), database=name)
    await server.execute("VACUUM ANALYZE session_errors", database=name)
    return server.url_of(name), project


async def fill_sqlite(directory: Path, rows: int) -> tuple[str, str]:
    path = directory / f"rows-{rows}.db"
    project = await new_project(f"sqlite:///{path}")
    numbers = f"(WITH RECURSIVE count(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM count WHERE n < {rows - 1})"
    fill = filling(project, rows, f"{numbers} SELECT n FROM count)", "printf('%032x', n)")

    def run() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = OFF")
            for index in INDEXES:
                connection.execute(f"DROP INDEX {index}")
            connection.execute(fill)
            for index, columns in INDEXES.items():
                connection.execute(f"CREATE INDEX {index} ON session_errors {columns}")

    await asyncio.to_thread(run)
    return f"sqlite:///{path}", project


async def measure_reads(url: str, project: str, rows: int, reads: int) -> dict[str, float]:
    """p50 of each kind of read, in milliseconds."""
    store = await Store.open(url)
    chance = random.Random(1)

    async def newest() -> int:
        return len((await store.project_errors(project, limit=PAGE, cursor=None)).errors)

    async def middle() -> int:
        moment_ms = FIRST_MS + chance.randrange(PAGE + 1, rows)
        cursor = cursors.make("project", moment_ms, "0")
        return len((await store.project_errors(project, limit=PAGE, cursor=cursor)).errors)

    async def one_session() -> int:
        name = f"s{chance.randrange(rows // PER_SESSION)}"
        return len((await store.session_errors(project, name, limit=PAGE, cursor=None)).errors)

    found = {}
    try:
        for read, expected in ((newest, PAGE), (middle, PAGE), (one_session, PER_SESSION)):
            await timed(read, expected, reads // 4)  # what is read often is in memory
            found[read.__name__] = round(statistics.median(await timed(read, expected, reads)) * 1000, 3)
    finally:
        await store.aclose()
    return found


async def timed(read: Callable[[], Awaitable[int]], expected: int, reads: int) -> list[float]:
    seconds = []
    for _ in range(reads):
        began = time.perf_counter()
        count = await read()
        seconds.append(time.perf_counter() - began)
        if count != expected:
            raise AssertionError(f"expected {expected} errors, got {count}")
    return seconds


async def compare(small: tuple[str, str], big: tuple[str, str], rows: int, reads: int) -> dict[str, Any]:
    few = await measure_reads(*small, SMALL, reads)
    many = await measure_reads(*big, rows, reads)
    return {
        name: {
            f"{SMALL}_rows_ms": few[name],
            f"{rows}_rows_ms": many[name],
            "ratio": round(many[name] / few[name], 2),
        }
        for name in few
    }


async def measure(directory: Path, *, rows: int, reads: int) -> dict[str, Any]:
    async with postgres_server() as server:
        small, big = await fill_postgresql(server, SMALL), await fill_postgresql(server, rows)
        postgresql = await compare(small, big, rows, reads)
    small, big = await fill_sqlite(directory, SMALL), await fill_sqlite(directory, rows)
    return {"postgresql": postgresql, "sqlite": await compare(small, big, rows, reads)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the big table")
    parser.add_argument("--reads", type=int, default=400, help="of each kind")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.rows % STEP == 0:
        parser.error(f"--rows must not be a multiple of {STEP}")
    with tempfile.TemporaryDirectory(prefix="voicethere-reads-", dir=Path.cwd()) as directory:
        found = asyncio.run(measure(Path(directory), rows=arguments.rows, reads=arguments.reads))
    if arguments.json:
        print(json.dumps(found))
        return
    for engine, reads in found.items():
        for name, values in reads.items():
            print(f"{engine:12} {name:12} {json.dumps(values)}")


if __name__ == "__main__":
    main()
