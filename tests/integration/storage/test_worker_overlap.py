"""What the worker does at the same time, and what never: seen through gates in front of queue and store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import cast

import pytest

from voicethere.adapters.store import CommittedBatch, Store
from voicethere.core.ports import Delivery
from voicethere.roles.sessions.worker import Worker
from voicethere.testing.queue import InMemoryErrorQueue, sample_error
from voicethere.wire.queue import QueueItem

SOON = 20.0
BATCH = 3


class Gate:
    """Lets through as many as it was told to; says how many have come."""

    def __init__(self, allowed: int = 0) -> None:
        self.come = self.through = 0
        self._allowed = allowed
        self._changed = asyncio.Condition()

    async def allow(self, more: int) -> None:
        async with self._changed:
            self._allowed += more
            self._changed.notify_all()

    async def after(self, *, come: int = 0, through: int = 0) -> None:
        async with asyncio.timeout(SOON), self._changed:
            await self._changed.wait_for(lambda: self.come >= come and self.through >= through)

    async def pass_(self) -> None:
        async with self._changed:
            self.come += 1
            mine = self.come
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._allowed >= mine)
            self.through += 1
            self._changed.notify_all()


class GatedStore:
    """The store's one method that a worker uses."""

    def __init__(self, store: Store) -> None:
        self.gate = Gate()
        self.committed = Gate(1000)
        self.batches: list[list[QueueItem]] = []
        self._store = store
        self._busy = False

    async def commit_batch(
        self, items: Sequence[QueueItem], dead: Sequence[tuple[bytes, str]]
    ) -> CommittedBatch:
        assert not self._busy, "two transactions of one worker at once"
        self._busy = True
        await self.gate.pass_()
        committed = await self._store.commit_batch(items, dead)
        self.batches.append(list(items))
        self._busy = False
        await self.committed.pass_()
        return committed


class GatedQueue(InMemoryErrorQueue):
    """Counts what is received; acknowledges through a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.received = 0
        self.gate = Gate()
        self.broken = False

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        found = await super().receive(limit=limit, wait_seconds=wait_seconds)
        self.received += len(found)
        return found

    async def acknowledge(self, positions: Sequence[str]) -> None:
        await self.gate.pass_()
        if self.broken:
            raise ValueError("a defect of the adapter")
        await super().acknowledge(positions)


@pytest.fixture
async def real_store(url: str) -> AsyncIterator[Store]:
    store = await Store.open(url)
    project = await store.create_project(org_id=await store.ensure_default_org(), name="P", slug="p")
    await store.create_session(
        session_id="s", project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
    )
    yield store
    await store.aclose()


class Scene:
    def __init__(self, store: Store, project_id: str) -> None:
        self.store = GatedStore(store)
        self.queue = GatedQueue()
        self.told: list[CommittedBatch] = []
        self.worker = Worker(self.queue, cast(Store, self.store), batch=BATCH, on_committed=self.told.append)
        self._project_id = project_id

    def items(self, count: int) -> list[QueueItem]:
        return [sample_error("s", self._project_id) for _ in range(count)]


@pytest.fixture
async def scene(real_store: Store) -> Scene:
    (project,) = await real_store.list_projects(await real_store.ensure_default_org())
    return Scene(real_store, project.id)


async def turns_of_the_loop() -> None:
    """Everything that could happen without a gate being opened has happened after these."""
    for _ in range(50):
        await asyncio.sleep(0)


async def finish(scene: Scene, working: asyncio.Task[None]) -> None:
    await scene.store.gate.allow(1000)
    await scene.queue.gate.allow(1000)
    async with asyncio.timeout(SOON):
        await scene.worker.stop()
        await working


async def test_a_worker_that_is_behind_receives_while_it_commits(scene: Scene) -> None:
    items = scene.items(4 * BATCH)
    await scene.queue.put(items)
    working = asyncio.create_task(scene.worker.run())
    await scene.store.gate.after(come=1)
    await turns_of_the_loop()
    # The batch that is being committed and one more: what a worker holds is bounded.
    assert scene.queue.received == 2 * BATCH
    await finish(scene, working)
    assert [item for batch in scene.store.batches for item in batch] == items
    assert await scene.queue.depth() == 0


async def test_a_worker_that_keeps_up_takes_together_what_came_during_a_commit(scene: Scene) -> None:
    items = scene.items(3)
    await scene.queue.put(items[:1])
    working = asyncio.create_task(scene.worker.run())
    await scene.store.gate.after(come=1)
    for item in items[1:]:
        await scene.queue.put([item])
        await turns_of_the_loop()
    assert scene.queue.received == 1
    await finish(scene, working)
    assert scene.store.batches == [items[:1], items[1:]]


async def test_the_next_batch_commits_while_one_is_acknowledged_but_only_one(scene: Scene) -> None:
    await scene.queue.put(scene.items(4 * BATCH))
    await scene.store.gate.allow(1000)
    working = asyncio.create_task(scene.worker.run())
    await scene.queue.gate.after(come=1)
    await scene.store.committed.after(through=2)
    await turns_of_the_loop()
    # Two are committed; of the second nobody hears before the first is acknowledged, and no third begins.
    assert scene.store.gate.come == 2
    assert [batch.inserted for batch in scene.told] == [BATCH]
    assert await scene.queue.depth() == 4 * BATCH
    await scene.queue.gate.allow(1)
    await scene.queue.gate.after(come=2)
    assert await scene.queue.depth() == 3 * BATCH
    await finish(scene, working)
    assert await scene.queue.depth() == 0


async def test_nothing_is_acknowledged_before_its_commit(scene: Scene) -> None:
    await scene.queue.put(scene.items(2 * BATCH))
    await scene.queue.gate.allow(1000)
    working = asyncio.create_task(scene.worker.run())
    await scene.store.gate.allow(1)
    await scene.store.gate.after(come=2)
    await scene.queue.gate.after(through=1)
    await turns_of_the_loop()
    assert scene.queue.gate.come == 1
    assert await scene.queue.depth() == BATCH
    await finish(scene, working)


async def test_stopping_stores_what_was_received_ahead_and_leaves_the_rest_to_others(scene: Scene) -> None:
    worker = Worker(scene.queue, cast(Store, scene.store), batch=BATCH, empties_queue=False)
    items = scene.items(4 * BATCH)
    await scene.queue.put(items)
    working = asyncio.create_task(worker.run())
    await scene.store.gate.after(come=1)
    await turns_of_the_loop()
    stopping = asyncio.create_task(worker.stop())
    await scene.store.gate.allow(1000)
    await scene.queue.gate.allow(1000)
    async with asyncio.timeout(SOON):
        await stopping
        await working
    assert scene.store.batches == [items[:BATCH], items[BATCH : 2 * BATCH]]
    assert await scene.queue.depth() == 2 * BATCH


async def test_a_cancelled_worker_leaves_no_task_and_loses_nothing(scene: Scene, real_store: Store) -> None:
    await scene.queue.put(scene.items(4 * BATCH))
    await scene.store.gate.allow(1)
    before = asyncio.all_tasks()
    working = asyncio.create_task(scene.worker.run())
    await scene.store.gate.after(come=2)  # one waits to be acknowledged, one commits, one is received ahead
    await scene.queue.gate.after(come=1)
    working.cancel()
    with suppress(asyncio.CancelledError):
        async with asyncio.timeout(SOON):
            await working
    assert asyncio.all_tasks() == before
    batches: list[CommittedBatch] = []
    successor = Worker(scene.queue.reopened(), real_store, on_committed=batches.append)
    working = asyncio.create_task(successor.run())
    await successor.stop()
    await working
    assert sum(batch.duplicates for batch in batches) == BATCH
    assert sum(batch.inserted for batch in batches) == 3 * BATCH


async def test_a_defect_in_acknowledging_ends_the_work_even_where_nothing_comes_any_more(
    scene: Scene,
) -> None:
    scene.queue.broken = True
    await scene.queue.put(scene.items(1))
    await scene.store.gate.allow(1000)
    await scene.queue.gate.allow(1000)
    with pytest.raises(ValueError, match="a defect of the adapter"):
        async with asyncio.timeout(SOON):
            await scene.worker.run()
