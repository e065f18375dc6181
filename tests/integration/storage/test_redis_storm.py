"""While one project storms, another's error is stored within a bounded number of transactions."""

from __future__ import annotations

import asyncio

from voicethere.adapters.queue import RedisErrorQueue, SampledErrorQueue
from voicethere.adapters.store import CommittedBatch, Store
from voicethere.core.storm import StormRules
from voicethere.roles.sessions.worker import Worker
from voicethere.testing.clock import ManualClock
from voicethere.testing.queue import sample_error
from voicethere.testing.redis_server import redis_server
from voicethere.wire.queue import ErrorItem

SOON = 40.0
BATCH = 100
PRODUCERS = 3
RULES = StormRules(burst=100, per_second=20.0)


async def project_with_session(store: Store, slug: str) -> str:
    project = await store.create_project(org_id=await store.ensure_default_org(), name=slug, slug=slug)
    await store.create_session(
        session_id=slug, project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
    )
    return project.id


def recoverable(slug: str, project_id: str) -> ErrorItem:
    return sample_error(slug, project_id, recoverable=True)


async def test_a_storm_of_fifty_budgets_delays_another_projects_error_by_few_transactions(url: str) -> None:
    store = await Store.open(url)
    stormy, calm = [await project_with_session(store, slug) for slug in ("stormy", "calm")]
    async with redis_server() as redis:
        clock = ManualClock()
        producers = [SampledErrorQueue(RedisErrorQueue(redis.url), clock, RULES) for _ in range(PRODUCERS)]

        async def rage(queue: SampledErrorQueue) -> None:
            for _ in range(50):
                await queue.put([recoverable("stormy", stormy) for _ in range(RULES.burst)])

        await asyncio.gather(*(rage(queue) for queue in producers))
        error = recoverable("calm", calm)
        await producers[0].put([error])

        transactions: list[CommittedBatch] = []
        committed = asyncio.Condition()

        async def notice(batch: CommittedBatch) -> None:
            async with committed:
                transactions.append(batch)
                committed.notify_all()

        noticing: list[asyncio.Task[None]] = []
        reading = RedisErrorQueue(redis.url)
        worker = Worker(
            reading,
            store,
            batch=BATCH,
            on_committed=lambda b: noticing.append(asyncio.create_task(notice(b))),
        )
        working = asyncio.create_task(worker.run())
        bound = PRODUCERS * RULES.burst // BATCH + 1
        async with asyncio.timeout(SOON), committed:
            await committed.wait_for(lambda: len(transactions) >= bound)
        page = await store.project_errors(calm, limit=10, cursor=None)
        assert [row.id for row in page.errors] == [error.record.id]
        # Fifty budgets came from each of three; one each was queued.
        assert sum(batch.inserted for batch in transactions) == PRODUCERS * RULES.burst + 1
        await worker.stop()
        await working
        assert await reading.depth() == 0
        for queue in producers:
            await queue.aclose()
        await reading.aclose()
    await store.aclose()
