"""What is soaked: a platform, where it is reached, and how to look at it from outside.

The embedded one is a real `voicethere up`: processes, files and rows. The one on engines has every role
apart, with a Redis and a PostgreSQL of its own.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psutil
import psycopg
import redis

from voicethere.testing.distributed import Distributed, distributed_platform
from voicethere.testing.platform_process import RunningPlatform, fresh_platform

Processes = Mapping[str, Sequence[psutil.Process]]
"""By role; several processes of one role are measured as a sum."""

IMPATIENT = {"rejoin_seconds": 5}
"""Settings of the runner: who vanishes is given up within a quarter of a minute, not three."""
CAPACITY = 64

_COUNTED: Sequence[LiteralString] = (
    "sessions",
    "session_errors",
    "error_suppressions",
    "dead_letters",
    "conversations",
    "conversation_entities",
    "conversation_prompts",
    "deployments",
    "builds",
)

_UNFINISHED = "SELECT count(*) FROM sessions WHERE ended_at_ms IS NULL AND status <> 'failed'"


@dataclass(frozen=True)
class Target:
    """`services` are where clients start sessions, `chats` where they chat; `processes` and `stored`
    block for some milliseconds."""

    name: str
    control: RunningPlatform
    services: Sequence[str]
    chats: Sequence[str]
    processes: Callable[[], Processes]
    stored: Callable[[], Mapping[str, float]]


@contextlib.asynccontextmanager
async def embedded() -> AsyncIterator[Target]:
    """All roles on this machine, on files; nothing of it is left afterwards."""
    options = [f"--capacity={CAPACITY}", "--log-level=WARNING"]
    options += [f"--runner-set={name}={value}" for name, value in IMPATIENT.items()]
    async with fresh_platform(options) as running:
        root = Path(running.data_dir)
        yield Target(
            name="embedded: `voicethere up`",
            control=running,
            services=[running.base_url],
            chats=[running.base_url],
            processes=lambda: _tree(running.runner_pid),
            stored=lambda: _files_and_rows(root),
        )


@contextlib.asynccontextmanager
async def on_engines() -> AsyncIterator[Target]:
    """Two session services, chat gateways, workers and runners each, and a control plane, on Redis and
    PostgreSQL."""
    settings = {
        "capacity": CAPACITY // 2,
        "log_level": "WARNING",
        "runner_settings": {name: float(value) for name, value in IMPATIENT.items()},
    }
    async with distributed_platform(gateways=2, settings=settings) as platform:
        # Nothing but what asks is connected: a client of our own would be seen as one of the platform's.
        with redis.Redis.from_url(platform.redis.url) as asking:
            yield Target(
                name="on engines: Redis, PostgreSQL, 2 session services, chat gateways, workers and runners",
                control=platform.control_plane,
                services=[service.base_url for service in platform.session_services],
                chats=[gateway.said["base_url"] for gateway in platform.gateways],
                processes=lambda: _apart(platform),
                stored=lambda: _engines_and_rows(platform, asking),
            )


def _apart(platform: Distributed) -> Processes:
    found: dict[str, list[psutil.Process]] = {
        "control": [psutil.Process(role.pid) for role in platform.controls],
        "session services": [psutil.Process(role.pid) for role in platform.sessions],
        "chat gateways": [psutil.Process(role.pid) for role in platform.gateways],
        "workers": [psutil.Process(role.pid) for role in platform.workers],
    }
    for role in platform.runners:
        for name, processes in runner_tree(psutil.Process(role.pid)).items():
            found.setdefault(name, []).extend(processes)
    if platform.redis.pid is not None:
        found["redis"] = [psutil.Process(platform.redis.pid)]
    if platform.postgres.pid is not None:
        server = psutil.Process(platform.postgres.pid)
        found["postgresql"] = [server, *server.children()]
    return found


def _engines_and_rows(platform: Distributed, asking: redis.Redis) -> dict[str, float]:
    folder = platform.folder
    found: dict[str, float] = {
        "log files/bytes": sum(size_of(Path(role.log_file)) for role in platform.roles),
        "spool/bytes": sum(folder_bytes(path) for path in folder.glob("*/**/spool") if path.is_dir()),
        "scratch/entries": sum(entries(path) for path in folder.glob("runner-*/runner/scratch")),
        "unpacked builds/entries": sum(entries(path) for path in folder.glob("runner-*/runner/bundles")),
        "stored bundles/bytes": folder_bytes(folder / "bundles"),
        "redis data/bytes": float(asking.info("memory")["used_memory"]),
        "redis keys/entries": float(asking.dbsize()),
        "queue/items": float(sum(asking.xlen(key) for key in asking.scan_iter(_type="STREAM"))),
    }
    with psycopg.connect(platform.postgres.url, autocommit=True) as connection:
        for table in _COUNTED:
            found[f"{table}/rows"] = _one(connection, f"SELECT count(*) FROM {table}")  # noqa: S608
        found["unfinished sessions/rows"] = _one(connection, _UNFINISHED)
        found["database/bytes"] = _one(connection, "SELECT pg_database_size(current_database())")
    return found


def _one(connection: psycopg.Connection[tuple[int]], query: LiteralString) -> float:
    row = connection.execute(query).fetchone()
    return 0.0 if row is None else float(row[0])


def _tree(runner_pid: int) -> Processes:
    runner = psutil.Process(runner_pid)
    platform = runner.parent()
    if platform is None:
        raise RuntimeError("the runner has no parent any more: the platform has ended")
    found: dict[str, list[psutil.Process]] = {"platform": [platform]}
    for child in platform.children():
        if child.pid != runner_pid:
            found.setdefault("other children", []).append(child)
    for role, processes in runner_tree(runner).items():
        found.setdefault(role, []).extend(processes)
    return found


def runner_tree(runner: psutil.Process) -> dict[str, list[psutil.Process]]:
    """A runner, its zygote, the agents below it, and the processes that hear and speak."""
    found: dict[str, list[psutil.Process]] = {"runner": [runner]}
    for child in runner.children():
        role = _role(child)
        found.setdefault(role, []).append(child)
        if role == "zygote":
            found.setdefault("agents", []).extend(child.children(recursive=True))
    return found


def _role(process: psutil.Process) -> str:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return "other children"
    for role in ("zygote", "recognizer", "synthesizer"):
        if role in words:
            return role
    return "other children"


def _files_and_rows(root: Path) -> dict[str, float]:
    database, queue = root / "voicethere.db", root / "queue.db"
    found: dict[str, float] = {
        "database wal/bytes": size_of(database.with_name("voicethere.db-wal")),
        "queue wal/bytes": size_of(queue.with_name("queue.db-wal")),
        "log files/bytes": folder_bytes(root / "logs"),
        "spool/bytes": folder_bytes(root / "runner" / "spool") + folder_bytes(root / "sessions" / "spool"),
        "scratch/entries": entries(root / "runner" / "scratch"),
        "unpacked builds/entries": entries(root / "runner" / "bundles"),
        "stored bundles/bytes": folder_bytes(root / "bundles"),
    }
    with contextlib.closing(_read_only(database)) as connection:
        found["database/bytes"] = _used(connection)
        for table in _COUNTED:
            (found[f"{table}/rows"],) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        (found["unfinished sessions/rows"],) = connection.execute(_UNFINISHED).fetchone()
    with contextlib.closing(_read_only(queue)) as connection:
        found["queue/bytes"] = _used(connection)
        (found["queue/items"],) = connection.execute("SELECT count(*) FROM items").fetchone()
    return found


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10, isolation_level=None)


def _used(connection: sqlite3.Connection) -> float:
    """Bytes of the pages that are in use, wherever they are written yet."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return float((pages - free) * size)


def size_of(path: Path) -> int:
    """Bytes; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below; 0 where there is no such folder."""
    return sum(size_of(path) for path in folder.rglob("*") if path.is_file())


def entries(folder: Path) -> int:
    """How many files and folders are in it; 0 where there is no such folder."""
    try:
        return sum(1 for _ in folder.iterdir())
    except FileNotFoundError:
        return 0
