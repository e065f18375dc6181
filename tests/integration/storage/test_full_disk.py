"""A disk that is full: nothing is half accepted, the reason is named, and it goes on once there is room."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.core.ports import QueueUnavailable
from voicethere.testing.queue import sample_error
from voicethere.wire.queue import decode

Start = Callable[..., subprocess.Popen[str]]


async def filled(start: Start, what: str, directory: Path) -> dict[str, list[str]]:
    child = start("fill_the_disk", what, directory, 600_000)
    output, _ = await asyncio.to_thread(child.communicate, None, 60)
    assert child.returncode == 0
    report: dict[str, list[str]] = json.loads(output)
    return report


async def test_a_queue_on_a_full_disk_refuses_whole_puts(tmp_path: Path, start: Start) -> None:
    report = await filled(start, "queue", tmp_path)
    assert len(report["accepted"]) > 30
    assert report["refused"]
    assert "cannot be used now" in str(report["reason"])
    assert str(report["last"]) in report["accepted"]
    with closing(sqlite3.connect(tmp_path / "queue.db")) as connection:
        rows = connection.execute("SELECT data FROM items ORDER BY position").fetchall()
    assert [decode(row[0]).record.id for row in rows] == report["accepted"]  # type: ignore[union-attr]


async def test_a_store_on_a_full_disk_refuses_whole_batches(tmp_path: Path, start: Start) -> None:
    report = await filled(start, "store", tmp_path)
    assert "cannot be used now" in str(report["reason"])
    assert report["inserted_later"] == 20
    assert sorted(report["rows"]) == sorted(report["accepted"] + report["refused"])


async def test_on_a_full_queue_what_is_done_can_still_be_forgotten(tmp_path: Path) -> None:
    """Else a full queue could never be emptied: the refused puts would take the removals with them."""
    path = tmp_path / "queue.db"
    queue = EmbeddedErrorQueue(path)
    await queue.put([sample_error(stack="x" * 20_000) for _ in range(10)])
    table = queue._write_table
    assert table is not None
    table._connection.execute("PRAGMA max_page_count = 1")  # never below what there is
    deliveries = await queue.receive(limit=10, wait_seconds=0)
    put, removal = await asyncio.gather(
        queue.put([sample_error(stack="x" * 60_000)]),
        queue.acknowledge([delivery.position for delivery in deliveries]),
        return_exceptions=True,
    )
    assert isinstance(put, QueueUnavailable)
    assert "full" in str(put)
    assert removal is None
    assert await queue.depth() == 0
    await queue.put([sample_error()])
    await queue.aclose()
