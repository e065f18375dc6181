"""The schema that the migrations make is the one that the code describes, and it is made once."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from voicethere.adapters.store import Store, StoreUnavailable, migrate
from voicethere.adapters.store.migrate import locked, upgrade
from voicethere.adapters.store.tables import metadata

Start = Callable[..., subprocess.Popen[str]]

PACKAGE = Path(__file__).parents[3]


def schema(path: Path) -> dict[str, object]:
    """Every table with its columns and constraints, every index with its SQL, apart from spacing.

    Not the SQL of tables: a column that was added later stands in another place of it.
    """
    found: dict[str, object] = {}
    with closing(sqlite3.connect(path)) as connection:
        for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
            if name.startswith("alembic_"):
                continue
            if kind == "table":
                parts = ("table_xinfo", "foreign_key_list", "index_list")
                found[name] = [
                    sorted(row[1:] for row in connection.execute(f"PRAGMA {part}({name})")) for part in parts
                ]
            elif sql is not None:
                found[name] = " ".join(sql.split())
    return found


async def test_the_migrated_schema_is_the_described_one(tmp_path: Path) -> None:
    migrated, described = tmp_path / "migrated.db", tmp_path / "described.db"
    await (await Store.open(f"sqlite:///{migrated}")).aclose()
    engine = create_engine(f"sqlite:///{described}")
    metadata.create_all(engine)
    engine.dispose()
    assert schema(migrated) == schema(described)
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    for _ in range(2):
        with engine.begin() as connection:
            upgrade(connection)
    engine.dispose()
    assert len(schema(tmp_path / "x.db")) > 10


def test_sessions_of_before_are_no_chats_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.exec_driver_sql("INSERT INTO orgs VALUES ('o', 'o', 'o', 1)")
        connection.exec_driver_sql(
            "INSERT INTO projects (id, org_id, name, slug, created_at_ms) VALUES ('p', 'o', 'p', 'p', 1)"
        )
        connection.exec_driver_sql(
            "INSERT INTO sessions (id, project_id, status, created_at_ms, updated_at_ms)"
            " VALUES ('s', 'p', 'ready', 1, 1)"
        )
    with engine.begin() as connection:
        upgrade(connection)
    with engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT id, status, conversation_id FROM sessions").all()
        assert [tuple(row) for row in kept] == [("s", "ready", None)]
        assert connection.exec_driver_sql("SELECT count(*) FROM conversations").scalar_one() == 0
    engine.dispose()


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "voicethere.db")) as connection:
        connection.execute("CREATE TABLE session_errors (id TEXT)")
    before = schema(tmp_path / "voicethere.db")
    with pytest.raises(StoreUnavailable, match="already exists"):
        asyncio.run(Store.open(f"sqlite:///{tmp_path}/voicethere.db"))
    assert schema(tmp_path / "voicethere.db") == before


async def test_processes_that_open_at_once_agree(tmp_path: Path, url: str, start: Start) -> None:
    signal = tmp_path / "go"
    children = [start("open_store", url, signal) for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert await asyncio.to_thread(child.stdout.readline) == "ready\n"
    signal.touch()
    outputs = await asyncio.gather(*(asyncio.to_thread(child.communicate, None, 60) for child in children))
    assert [child.returncode for child in children] == [0] * 4
    assert len({output for output, _ in outputs}) == 1
    with closing(sqlite3.connect(tmp_path / "voicethere.db")) as connection:
        assert connection.execute("SELECT count(*) FROM orgs").fetchone() == (1,)
        assert connection.execute("PRAGMA page_size").fetchone() == (8192,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_nobody_makes_the_database_while_another_process_does(tmp_path: Path, url: str) -> None:
    with locked(tmp_path / "voicethere.db"):
        opening = asyncio.create_task(Store.open(url))
        done, _ = await asyncio.wait({opening}, timeout=0.2)
        assert not done
        assert "voicethere.db" not in os.listdir(tmp_path)
    await (await opening).aclose()


def test_the_wheel_brings_the_migrations(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    here = PACKAGE / "src" / "voicethere" / "adapters" / "store" / "migrations"
    wanted = {f"voicethere/adapters/store/migrations/{path.relative_to(here)}" for path in here.rglob("*.py")}
    assert len(wanted) >= 4
    assert wanted <= set(names)
