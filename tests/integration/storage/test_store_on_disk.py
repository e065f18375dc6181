"""What the store does with its file: settings, modes, locks, plans."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from voicethere.adapters.store import Store, StoreUnavailable


async def test_the_files_are_private(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path}/data/voicethere.db")
    await store.ensure_default_org()
    names = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "data").iterdir()}
    assert {"voicethere.db", "voicethere.db-wal"} <= set(names)
    assert set(names.values()) == {0o600}
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    await store.aclose()
    left = sorted(file.name for file in (tmp_path / "data").iterdir())
    assert left == ["voicethere.db", "voicethere.db.lock"]  # the log went back into the database


async def test_a_locked_database_is_unavailable_for_writing_and_recovers(tmp_path: Path, url: str) -> None:
    store = await Store.open(url, busy_seconds=0.05)
    org = await store.ensure_default_org()
    with closing(sqlite3.connect(tmp_path / "voicethere.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(
            *(store.create_project(org_id=org, name="P", slug=f"p{n}") for n in range(3)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [StoreUnavailable] * 3
        assert "locked" in str(results[0])
        assert list(await store.list_projects(org)) == []  # reading goes on
        holder.execute("ROLLBACK")
    await store.create_project(org_id=org, name="P", slug="p0")
    assert len(await store.list_projects(org)) == 1
    await store.aclose()


async def test_words_of_an_unavailable_database_hold_no_value_of_a_row(tmp_path: Path, url: str) -> None:
    store = await Store.open(url, busy_seconds=0.01)
    project = await store.create_project(org_id=await store.ensure_default_org(), name="P", slug="p")
    with closing(sqlite3.connect(tmp_path / "voicethere.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable) as caught:
            await store.put_secret(project.id, "API_KEY", "s3cret")
    assert "s3cret" not in str(caught.value)
    await store.aclose()


@pytest.mark.parametrize("spoil", ["garbage", "directory", "newer"])
async def test_a_file_that_is_no_database_is_named(tmp_path: Path, url: str, spoil: str) -> None:
    path = tmp_path / "voicethere.db"
    if spoil == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    elif spoil == "directory":
        path.mkdir()
    else:
        await (await Store.open(url)).aclose()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreUnavailable, match="cannot be used now: "):
        await Store.open(url)


async def test_two_stores_on_one_file_see_each_other(url: str) -> None:
    one, two = await Store.open(url), await Store.open(url)
    org = await one.ensure_default_org()
    await asyncio.gather(
        *(
            store.create_project(org_id=org, name="P", slug=f"{n}-{s}")
            for n in range(20)
            for s, store in enumerate((one, two))
        )
    )
    assert len(await one.list_projects(org)) == len(await two.list_projects(org)) == 40
    await one.aclose()
    assert len(await two.list_projects(org)) == 40
    await two.aclose()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (
            "SELECT * FROM session_errors WHERE project_id = 'p' AND (occurred_at_ms, id) < (1, 'x')"
            " ORDER BY occurred_at_ms DESC, id DESC LIMIT 21",
            "ix_session_errors_project_newest",
        ),
        (
            "SELECT * FROM session_errors WHERE project_id = 'p' AND session_id = 's'"
            " AND (occurred_at_ms, id) > (1, 'x') ORDER BY occurred_at_ms, id LIMIT 21",
            "ix_session_errors_session_oldest",
        ),
        (
            "SELECT * FROM sessions WHERE project_id = 'p' ORDER BY created_at_ms DESC, number DESC LIMIT 20",
            "ix_sessions_project_newest",
        ),
        (
            "SELECT * FROM sessions WHERE ended_at_ms IS NULL ORDER BY number",
            "ix_sessions_unfinished",
        ),
    ],
)
async def test_pages_are_read_from_an_index_without_sorting(
    tmp_path: Path, url: str, query: str, index: str
) -> None:
    await (await Store.open(url)).aclose()
    with closing(sqlite3.connect(tmp_path / "voicethere.db")) as connection:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert index in plan
    assert "TEMP B-TREE" not in plan
