"""The worker between a queue and a real store: nothing is dropped, whatever is unavailable meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.adapters.store import CommittedBatch, Store
from voicethere.core.ports import ErrorQueuePort
from voicethere.roles.sessions.worker import Worker
from voicethere.testing.queue import InMemoryErrorQueue, sample_error
from voicethere.wire.queue import SessionEndedItem

SOON = 20.0


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = await Store.open(url, busy_seconds=0.02)
    yield store
    await store.aclose()


@pytest.fixture
async def project_id(store: Store) -> str:
    project = await store.create_project(org_id=await store.ensure_default_org(), name="P", slug="p")
    await store.create_session(
        session_id="s", project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
    )
    return project.id


@pytest.fixture
async def queue() -> InMemoryErrorQueue:
    return InMemoryErrorQueue()


class Attempts:
    """Stands in for sleeping: counts, and lets a test go on after so many waits."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.waited = asyncio.Condition()

    async def sleep(self, seconds: float) -> None:
        async with self.waited:
            self.seconds.append(seconds)
            self.waited.notify_all()
        await asyncio.sleep(0)  # let the others run, as real sleep would

    async def after(self, count: int) -> None:
        async with asyncio.timeout(SOON), self.waited:
            await self.waited.wait_for(lambda: len(self.seconds) >= count)


async def stored(store: Store, project_id: str) -> list[str]:
    return [row.id for row in (await store.project_errors(project_id, limit=100, cursor=None)).errors]


def end(project_id: str) -> SessionEndedItem:
    return SessionEndedItem(
        session_id="s",
        project_id=project_id,
        end_reason="agent_failed",
        failed=True,
        ended_at="2026-06-19T12:00:00.000Z",
    )


async def test_a_session_that_has_ended_has_its_errors(tmp_path: Path, store: Store, project_id: str) -> None:
    """The embedded queue and the store together, at whatever moment one looks."""
    queue = EmbeddedErrorQueue(tmp_path / "queue.db")
    batches: asyncio.Queue[CommittedBatch] = asyncio.Queue()
    worker = Worker(queue, store, batch=1, on_committed=batches.put_nowait)
    running = asyncio.create_task(worker.run())
    item = sample_error("s", project_id)
    await queue.put([item])
    await queue.put([end(project_id)])
    async with asyncio.timeout(SOON):
        assert (await batches.get()).inserted == 1
        assert (await batches.get()).ended == 1
    row = await store.get_session_row(project_id, "s")
    assert row is not None
    assert row.status == "failed"
    assert await stored(store, project_id) == [item.record.id]
    await worker.stop()
    await running
    assert await queue.depth() == 0
    await queue.aclose()


async def test_stopping_takes_what_is_there(store: Store, project_id: str, queue: InMemoryErrorQueue) -> None:
    worker = Worker(queue, store, batch=3)
    items = [sample_error("s", project_id) for _ in range(10)]
    await queue.put(items)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    async with asyncio.timeout(SOON):
        await worker.stop()
        await running
    assert sorted(await stored(store, project_id)) == sorted(item.record.id for item in items)
    assert await queue.depth() == 0


async def test_poison_is_buried_in_the_same_transaction_and_said(
    store: Store, project_id: str, queue: InMemoryErrorQueue
) -> None:
    batches: list[CommittedBatch] = []
    queue.put_raw(b'{"t": "error", "record": 5}')
    await queue.put([sample_error("s", project_id), sample_error("unknown", project_id)])
    worker = Worker(queue, store, on_committed=batches.append)
    with capture_logs() as logs:
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        await worker.stop()
        await running
    assert batches == [CommittedBatch(inserted=1, duplicates=0, dead=2, ended=0)]
    (said,) = [entry for entry in logs if entry["event"] == "items_dead_lettered"]
    assert (said["log_level"], said["count"], said["unreadable"]) == ("error", 2, 1)
    letters = await store.dead_letters()
    assert letters[1].problem.startswith("not an item of this queue: Expected `object`, got `int`")
    assert await queue.depth() == 0


async def test_a_locked_store_is_waited_for_longer_and_longer(
    tmp_path: Path, store: Store, project_id: str, queue: InMemoryErrorQueue
) -> None:
    attempts = Attempts()
    worker = Worker(queue, store, sleep=attempts.sleep)
    item = sample_error("s", project_id)
    await queue.put([item])
    with capture_logs() as logs:
        with closing(sqlite3.connect(tmp_path / "voicethere.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            running = asyncio.create_task(worker.run())
            await attempts.after(8)
            assert await queue.depth() == 1
            holder.execute("ROLLBACK")
        await worker.stop()
        await running
    assert await stored(store, project_id) == [item.record.id]
    assert await queue.depth() == 0
    assert attempts.seconds[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    waits = [entry for entry in logs if entry["event"] == "worker_waits"]
    assert "locked" in waits[0]["reason"]
    assert waits[0]["log_level"] == "warning"


async def test_an_unavailable_queue_is_waited_for(
    store: Store, project_id: str, queue: InMemoryErrorQueue
) -> None:
    attempts = Attempts()
    item = sample_error("s", project_id)
    await queue.put([item])
    queue.unavailable = "the disk is gone"
    worker = Worker(queue, store, sleep=attempts.sleep)
    running = asyncio.create_task(worker.run())
    await attempts.after(3)
    queue.unavailable = None
    await worker.stop()
    await running
    assert await stored(store, project_id) == [item.record.id]


async def test_an_acknowledgement_that_fails_is_tried_again_and_nothing_is_stored_twice(
    store: Store, project_id: str
) -> None:
    class Forgetful(InMemoryErrorQueue):
        failures = 2

        async def acknowledge(self, positions: list[str]) -> None:  # type: ignore[override]
            if self.failures:
                self.failures -= 1
                self.unavailable = "locked"
            try:
                await super().acknowledge(positions)
            finally:
                self.unavailable = None

    queue = Forgetful()
    batches: list[CommittedBatch] = []
    attempts = Attempts()
    await queue.put([sample_error("s", project_id)])
    worker = Worker(queue, store, on_committed=batches.append, sleep=attempts.sleep)
    running = asyncio.create_task(worker.run())
    await attempts.after(2)
    await worker.stop()
    await running
    assert batches == [CommittedBatch(inserted=1, duplicates=0, dead=0, ended=0)]
    assert await queue.depth() == 0


async def test_stopping_does_not_wait_for_a_store_that_stays_away(
    tmp_path: Path, store: Store, project_id: str, queue: InMemoryErrorQueue
) -> None:
    attempts = Attempts()
    worker = Worker(queue, store, sleep=attempts.sleep)
    await queue.put([sample_error("s", project_id)])
    with (
        capture_logs() as logs,
        closing(sqlite3.connect(tmp_path / "voicethere.db", isolation_level=None)) as holder,
    ):
        holder.execute("BEGIN IMMEDIATE")
        running = asyncio.create_task(worker.run())
        await attempts.after(1)
        async with asyncio.timeout(SOON):
            await worker.stop()
            await running
    assert await queue.depth() == 1
    (said,) = [entry for entry in logs if entry["event"] == "worker_stopped_early"]
    assert "locked" in said["reason"]
    # The next worker finds it.
    successor_queue: ErrorQueuePort = queue.reopened()
    successor = Worker(successor_queue, store)
    running = asyncio.create_task(successor.run())
    await asyncio.sleep(0)
    await successor.stop()
    await running
    assert len(await stored(store, project_id)) == 1
