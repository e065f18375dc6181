"""One queue's file, several processes: order, waking up, and whose turn it is to receive."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.adapters.store import Store
from voicethere.core.ports import Delivery, QueueUnavailable
from voicethere.testing.queue import sample_error
from voicethere.wire.queue import ErrorItem

Start = Callable[..., subprocess.Popen[str]]

SOON = 20.0


async def received(queue: EmbeddedErrorQueue, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(SOON):
        while len(found) < count:
            found += await queue.receive(limit=50, wait_seconds=SOON)
    return found


async def test_a_consumer_gets_what_two_other_processes_put_while_it_waits(
    tmp_path: Path, start: Start
) -> None:
    path = tmp_path / "queue.db"
    queue = EmbeddedErrorQueue(path)
    waiting = asyncio.create_task(received(queue, 2 * 3 * 40))
    for name in "ab":
        start("produce_errors", path, "s", "p", 3, 40, name)
    found = [delivery.item.record.id for delivery in await waiting if isinstance(delivery.item, ErrorItem)]
    for producer in ("a0", "a1", "a2", "b0", "b1", "b2"):
        assert [identity for identity in found if identity.startswith(producer)] == [
            f"{producer}-{number}" for number in range(40)
        ]
    await queue.aclose()


async def test_one_consumer_receives_and_the_next_takes_over_what_it_left(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    first, second = EmbeddedErrorQueue(path), EmbeddedErrorQueue(path)
    items = [sample_error() for _ in range(3)]
    await second.put(items)
    taken = await received(first, 3)
    assert list(await second.receive(limit=10, wait_seconds=0.05)) == []
    await first.acknowledge([taken[0].position])
    waiting = asyncio.create_task(received(second, 2))
    await first.aclose()
    assert [delivery.item for delivery in await waiting] == items[1:]
    await second.aclose()


async def test_the_turn_of_a_killed_consumer_passes_on(tmp_path: Path, url: str, start: Start) -> None:
    path = tmp_path / "queue.db"
    store = await Store.open(url)
    queue = EmbeddedErrorQueue(path)
    items = [sample_error("nope", "nope") for _ in range(3)]
    await queue.put(items)
    worker = start("work_and_die", path, url, 1, 10)
    assert await asyncio.to_thread(worker.wait, 30) == -9
    assert [delivery.item for delivery in await received(queue, 3)] == items
    await queue.aclose()
    await store.aclose()


async def test_a_queue_that_is_locked_accepts_nothing_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    queue = EmbeddedErrorQueue(path, busy_seconds=0.05)
    await queue.put([sample_error()])
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(
            *(queue.put([sample_error(), sample_error()]) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [QueueUnavailable] * 3
        assert "locked" in str(results[0])
        assert await queue.depth() == 1
        # A reader does not mind.
        (delivery,) = await queue.receive(limit=10, wait_seconds=0)
        with pytest.raises(QueueUnavailable, match="locked"):
            await queue.acknowledge([delivery.position])
        holder.execute("ROLLBACK")
    await queue.acknowledge([delivery.position])
    last = sample_error()
    await queue.put([last])
    assert [delivery.item for delivery in await received(queue, 1)] == [last]
    await queue.aclose()


async def test_closing_writes_what_waits_to_be_written(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    queue = EmbeddedErrorQueue(path)
    puts = [asyncio.create_task(queue.put([sample_error()])) for _ in range(300)]
    await asyncio.sleep(0)  # every put has begun
    await queue.aclose()
    await asyncio.gather(*puts)
    queue = EmbeddedErrorQueue(path)
    assert await queue.depth() == 300
    await queue.aclose()


async def test_a_cancelled_put_disturbs_no_other(tmp_path: Path) -> None:
    queue = EmbeddedErrorQueue(tmp_path / "queue.db")
    cancelled = asyncio.create_task(queue.put([sample_error()]))
    kept = sample_error()
    other = asyncio.create_task(queue.put([kept]))
    await asyncio.sleep(0)
    cancelled.cancel()
    await other
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert kept in [delivery.item for delivery in await received(queue, 1)]
    await queue.aclose()


async def test_the_files_are_private_and_a_loose_one_is_tightened(tmp_path: Path) -> None:
    path = tmp_path / "data" / "queue.db"
    queue = EmbeddedErrorQueue(path)
    await queue.put([sample_error()])
    names = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert {"queue.db", "queue.db-wal", "queue.db-shm"} <= set(names)
    assert set(names.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    await queue.aclose()
    path.chmod(0o644)
    queue = EmbeddedErrorQueue(path)
    assert await queue.depth() == 1
    assert path.stat().st_mode & 0o777 == 0o600
    await queue.aclose()


@pytest.mark.parametrize("spoil", ["newer", "garbage", "directory"])
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "queue.db"
    if spoil == "newer":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
    elif spoil == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    else:
        path.mkdir()
    queue = EmbeddedErrorQueue(path)
    for call in (queue.put([sample_error()]), queue.receive(limit=1, wait_seconds=0), queue.depth()):
        with pytest.raises(QueueUnavailable, match="cannot be used now: "):
            await call
    await queue.aclose()
