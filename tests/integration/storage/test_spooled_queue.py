"""The spool in front of the real queue: locked by somebody, on a disk that is full, gone altogether."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from voicethere.adapters.queue import EmbeddedErrorQueue, SpooledErrorQueue
from voicethere.testing.queue import sample_error
from voicethere.wire.queue import ErrorItem, decode

Start = Callable[..., subprocess.Popen[str]]
SOON = 20.0


def queue_at(directory: Path) -> SpooledErrorQueue:
    return SpooledErrorQueue(
        EmbeddedErrorQueue(directory / "queue.db", busy_seconds=0.05),
        directory / "spool",
        longest_pause_seconds=0.02,
    )


def rows(directory: Path) -> list[str]:
    """The ids in the queue's file, in order."""
    with closing(sqlite3.connect(directory / "queue.db")) as connection:
        found = [decode(row[0]) for row in connection.execute("SELECT data FROM items ORDER BY position")]
    return [item.record.id for item in found if isinstance(item, ErrorItem)]


async def replayed(queue: SpooledErrorQueue) -> None:
    async with asyncio.timeout(SOON):
        while queue.spooled:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.002)


async def test_while_the_file_is_locked_puts_return_and_arrive_once_in_order(tmp_path: Path) -> None:
    queue = queue_at(tmp_path)
    await queue.put([sample_error(id="before")])
    with closing(sqlite3.connect(tmp_path / "queue.db", isolation_level=None)) as locker:
        locker.execute("BEGIN EXCLUSIVE")
        for number in range(20):
            await queue.put([sample_error(id=f"locked-{number}")])
        assert queue.spooled == 20
        locker.execute("ROLLBACK")
    await queue.put([sample_error(id="behind")])
    await replayed(queue)
    assert rows(tmp_path) == ["before", *(f"locked-{number}" for number in range(20)), "behind"]
    await queue.aclose()


async def test_a_runner_that_restarts_while_the_file_is_locked_loses_nothing(tmp_path: Path) -> None:
    first = queue_at(tmp_path)
    await first.put([sample_error(id="before")])
    with closing(sqlite3.connect(tmp_path / "queue.db", isolation_level=None)) as locker:
        locker.execute("BEGIN EXCLUSIVE")
        await first.put([sample_error(id="first")])
        await first.aclose()
        second = queue_at(tmp_path)
        await second.open()
        await second.put([sample_error(id="second")])
        locker.execute("ROLLBACK")
    await replayed(second)
    assert rows(tmp_path) == ["before", "first", "second"]
    await second.aclose()


async def test_a_file_that_is_no_database_is_waited_out(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_bytes(b"this is no database" * 100)
    queue = queue_at(tmp_path)
    await queue.put([sample_error(id="a")])
    assert queue.spooled == 1
    (tmp_path / "queue.db").unlink()
    await replayed(queue)
    assert rows(tmp_path) == ["a"]
    await queue.aclose()


async def test_on_a_full_disk_the_spool_takes_over_and_says_when_it_cannot(
    tmp_path: Path, start: Start
) -> None:
    child = start("fill_the_disk", "spool", tmp_path, 600_000)
    output, _ = await asyncio.to_thread(child.communicate, None, 60)
    assert child.returncode == 0
    report = json.loads(output.splitlines()[-1])
    assert len(report["spooled"]) > 30
    assert "neither the error queue" in report["reason"]
    assert "make room on the disk" in report["reason"]
    assert rows(tmp_path) == report["accepted"]
