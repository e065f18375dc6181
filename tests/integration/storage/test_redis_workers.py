"""Workers and producers on one Redis, and what is killed among them: nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from voicethere.adapters.queue import RedisErrorQueue, SpooledErrorQueue
from voicethere.adapters.store import Store
from voicethere.core.ports import Delivery, QueueUnavailable
from voicethere.testing.queue import sample_error
from voicethere.testing.redis_server import redis_server
from voicethere.wire.queue import ErrorItem

Start = Callable[..., subprocess.Popen[str]]

SOON = 40.0


async def until_empty(queue: RedisErrorQueue | SpooledErrorQueue) -> None:
    async with asyncio.timeout(SOON):
        while await queue.depth():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)


async def everything(queue: RedisErrorQueue | SpooledErrorQueue) -> list[str]:
    found: list[Delivery] = []
    while batch := await queue.receive(limit=500, wait_seconds=0):
        found += batch
    return [delivery.item.record.id for delivery in found if isinstance(delivery.item, ErrorItem)]


async def all_rows(store: Store, project_id: str) -> list[str]:
    rows: list[str] = []
    cursor = None
    while True:
        page = await store.project_errors(project_id, limit=100, cursor=cursor)
        rows += [row.id for row in page.errors]
        cursor = page.next_cursor
        if cursor is None:
            return rows


async def test_two_workers_that_are_killed_again_and_again_lose_and_double_nothing(
    url: str, start: Start
) -> None:
    store = await Store.open(url)
    project = await store.create_project(org_id=await store.ensure_default_org(), name="P", slug="p")
    await store.create_session(
        session_id="s", project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
    )
    accepted: list[str] = []
    done = asyncio.Event()

    async def produce(queue: RedisErrorQueue) -> None:
        while not done.is_set():
            items = [sample_error("s", project.id) for _ in range(20)]
            await queue.put(items)
            accepted.extend(item.record.id for item in items)
            # No faster than it is stored: the workers are what is tried here.
            while await queue.depth() > 200 and not done.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def work_and_be_killed(redis_url: str, times: int) -> int:
        stored = 0
        for lines in range(1, times + 1):
            worker = start("work_from_redis", redis_url, url, 25, 0.2)
            assert worker.stdout is not None
            for _ in range(lines):
                stored += int(await asyncio.to_thread(worker.stdout.readline))
            worker.kill()
            # What it said between the last line that was read and its death counts too.
            rest = await asyncio.to_thread(worker.stdout.read)
            stored += sum(int(line) for line in rest.splitlines())
        return stored

    async with redis_server() as redis:
        queue = RedisErrorQueue(redis.url)
        producing = asyncio.create_task(produce(queue))
        await asyncio.gather(*(work_and_be_killed(redis.url, 3) for _ in range(2)))
        done.set()
        await producing
        start("work_from_redis", redis.url, url, 100, 0.2)
        await until_empty(queue)
        await queue.aclose()
    rows = await all_rows(store, project.id)
    assert len(rows) == len(set(rows))
    assert set(rows) == set(accepted)
    assert len(rows) > 200
    await store.aclose()


async def test_what_redis_accepted_is_there_after_it_was_killed() -> None:
    accepted: list[str] = []

    async def produce(queue: RedisErrorQueue) -> None:
        with suppress(QueueUnavailable):
            while True:
                items = [sample_error() for _ in range(3)]
                await queue.put(items)
                accepted.extend(item.record.id for item in items)

    async with redis_server(appendonly=True, appendfsync="always") as redis:
        queue = RedisErrorQueue(redis.url)
        for _ in range(3):
            before = len(accepted)
            producers = [asyncio.create_task(produce(queue)) for _ in range(20)]
            async with asyncio.timeout(SOON):
                while len(accepted) < before + 600:  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0.005)
                await redis.kill()
                await asyncio.gather(*producers)
            await redis.start()
        found = await everything(queue)
        assert set(accepted) <= set(found)
        assert len(found) == len(set(found))
        await queue.aclose()


async def test_the_spool_covers_an_outage_and_replays_it_in_order(tmp_path: Path) -> None:
    async with redis_server(appendonly=True) as redis:
        queue = SpooledErrorQueue(RedisErrorQueue(redis.url), tmp_path / "spool", longest_pause_seconds=0.05)
        items = [sample_error() for _ in range(30)]
        for item in items[:10]:
            await queue.put([item])
        await redis.kill()
        for item in items[10:20]:
            await queue.put([item])
        assert queue.spooled == 10
        await redis.start()
        for item in items[20:]:
            await queue.put([item])
        async with asyncio.timeout(SOON):
            while queue.spooled:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.005)
        assert await everything(queue) == [item.record.id for item in items]
        await queue.aclose()


async def test_what_was_spooled_at_the_death_of_redis_and_its_producer_comes_all_the_same(
    tmp_path: Path,
) -> None:
    async with redis_server(appendonly=True) as redis:
        await redis.kill()
        first = SpooledErrorQueue(RedisErrorQueue(redis.url), tmp_path / "spool")
        items = [sample_error() for _ in range(5)]
        await first.put(items)
        await first.aclose()
        await redis.start()
        second = SpooledErrorQueue(RedisErrorQueue(redis.url), tmp_path / "spool")
        await second.open()
        async with asyncio.timeout(SOON):
            while second.spooled:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.005)
        assert await everything(second) == [item.record.id for item in items]
        await second.aclose()
