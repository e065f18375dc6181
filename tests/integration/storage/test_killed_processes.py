"""What was accepted survives `kill -9` of whoever holds it, and becomes one row each."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.adapters.store import CommittedBatch, Store
from voicethere.core.ports import Delivery
from voicethere.roles.sessions.worker import Worker
from voicethere.wire.queue import ErrorItem

Start = Callable[..., subprocess.Popen[str]]

PRODUCERS = 5


def acknowledged_until_killed(child: subprocess.Popen[str], after: int) -> list[str]:
    """Kill the child once it has said `after` ids; all ids that it ever said."""
    assert child.stdout is not None
    said = [child.stdout.readline().strip() for _ in range(after)]
    child.kill()
    # Not `communicate`: it would lose what `readline` has buffered already.
    rest = child.stdout.read()
    child.wait(timeout=30)
    # The last line may be half an id: only whole lines count.
    return said + [line.strip() for line in rest.splitlines(keepends=True) if line.endswith("\n")]


def record_ids(deliveries: list[Delivery]) -> list[str]:
    assert all(isinstance(delivery.item, ErrorItem) for delivery in deliveries)
    return [delivery.item.record.id for delivery in deliveries if isinstance(delivery.item, ErrorItem)]


async def everything(queue: EmbeddedErrorQueue) -> list[Delivery]:
    found: list[Delivery] = []
    while batch := await queue.receive(limit=500, wait_seconds=0):
        found += batch
    return found


async def prepare(url: str) -> tuple[Store, str]:
    store = await Store.open(url)
    project = await store.create_project(org_id=await store.ensure_default_org(), name="P", slug="p")
    await store.create_session(
        session_id="s", project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
    )
    return store, project.id


async def rows_of(store: Store, project_id: str) -> list[str]:
    rows: list[str] = []
    cursor = None
    while True:
        page = await store.project_errors(project_id, limit=100, cursor=cursor)
        rows += [row.id for row in page.errors]
        cursor = page.next_cursor
        if cursor is None:
            return rows


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_killed_producer_loses_nothing_that_was_accepted(
    tmp_path: Path, start: Start, seed: int
) -> None:
    path = tmp_path / "queue.db"
    moments = random.Random(seed)
    said: list[str] = []
    for life in range(2):  # the second starts with the log that the first has left
        child = start("produce_errors", path, "s", "p", PRODUCERS, 0, f"{life}")
        said += await asyncio.to_thread(acknowledged_until_killed, child, moments.randint(1, 600))
    queue = EmbeddedErrorQueue(path)
    found = record_ids(await everything(queue))
    assert len(found) == len(set(found))
    assert set(said) <= set(found)
    # What is there beyond that was accepted, but the killed process could not say so any more.
    assert len(found) - len(said) <= 2 * PRODUCERS
    for producer in {identity.split("-")[0] for identity in found}:
        numbers = [int(i.split("-")[1]) for i in found if i.split("-")[0] == producer]
        assert numbers == list(range(len(numbers)))
    await queue.aclose()


@pytest.mark.parametrize("seed", [4, 5])
async def test_a_worker_killed_between_commit_and_acknowledgement_stores_nothing_twice(
    tmp_path: Path, url: str, start: Start, seed: int
) -> None:
    path = tmp_path / "queue.db"
    moments = random.Random(seed)
    store, project_id = await prepare(url)
    producer = start("produce_errors", path, "s", project_id, PRODUCERS, 0, "p")
    said = await asyncio.to_thread(acknowledged_until_killed, producer, moments.randint(200, 500))

    worker = start("work_and_die", path, url, moments.randint(1, 3), 50)
    output, _ = await asyncio.to_thread(worker.communicate, None, 30)
    assert worker.returncode == -9
    assert output.splitlines()[-1] == "50"
    stored_before = len(await rows_of(store, project_id))
    assert stored_before >= 50

    batches: list[CommittedBatch] = []
    queue = EmbeddedErrorQueue(path)
    successor = Worker(queue, store, on_committed=batches.append)
    running = asyncio.create_task(successor.run())
    await successor.stop()
    await running
    assert await queue.depth() == 0
    # The batch that was committed and not acknowledged came again, and changed nothing.
    assert sum(batch.duplicates for batch in batches) == 50
    rows = await rows_of(store, project_id)
    assert sum(batch.inserted for batch in batches) == len(rows) - stored_before
    assert len(rows) == len(set(rows))
    assert set(said) <= set(rows)
    assert await store.dead_letters() == []
    await queue.aclose()
    await store.aclose()
