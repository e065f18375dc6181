"""What every adapter of the `session-errors` queue promises; the shipped fake promises the same."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Protocol

import pytest
import redis

from voicethere.adapters.queue import (
    EmbeddedErrorQueue,
    RedisErrorQueue,
    SampledErrorQueue,
    SpooledErrorQueue,
)
from voicethere.core.ports import Delivery, ErrorQueuePort, QueueUnavailable
from voicethere.testing.clock import ManualClock
from voicethere.testing.queue import InMemoryErrorQueue, sample_error
from voicethere.testing.redis_server import redis_server
from voicethere.wire.queue import ErrorItem, SessionEndedItem

SOON = 10.0


class Backend(Protocol):
    """One queue under test, and what a test does to it from outside."""

    queue: ErrorQueuePort

    async def reopen(self) -> ErrorQueuePort: ...

    def put_raw(self, data: bytes) -> None: ...


class Embedded:
    queue: ErrorQueuePort

    def __init__(self, path: Path) -> None:
        self.path = path
        self.queue = EmbeddedErrorQueue(path)

    async def reopen(self) -> ErrorQueuePort:
        await self.queue.aclose()
        self.queue = EmbeddedErrorQueue(self.path)
        return self.queue

    def put_raw(self, data: bytes) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("INSERT INTO items (data) VALUES (?)", (data,))


class Spooled(Embedded):
    """The embedded queue with the producer's spool in front of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.queue = self._open()

    def _open(self) -> SpooledErrorQueue:
        return SpooledErrorQueue(EmbeddedErrorQueue(self.path), self.path.parent / "spool")

    async def reopen(self) -> ErrorQueuePort:
        await self.queue.aclose()
        self.queue = self._open()
        return self.queue


class Sampled(Embedded):
    """All in front of each other, as a runner has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.queue = self._open()

    def _open(self) -> SampledErrorQueue:
        spooled = SpooledErrorQueue(EmbeddedErrorQueue(self.path), self.path.parent / "spool")
        return SampledErrorQueue(spooled, ManualClock())

    async def reopen(self) -> ErrorQueuePort:
        await self.queue.aclose()
        self.queue = self._open()
        return self.queue


class InMemory:
    def __init__(self) -> None:
        self.memory = InMemoryErrorQueue()
        self.queue: ErrorQueuePort = self.memory

    async def reopen(self) -> ErrorQueuePort:
        self.queue = self.memory = self.memory.reopened()
        return self.queue

    def put_raw(self, data: bytes) -> None:
        self.memory.put_raw(data)


class Redis:
    queue: ErrorQueuePort

    def __init__(self, url: str) -> None:
        self.url = url
        self.queue = RedisErrorQueue(url)

    async def reopen(self) -> ErrorQueuePort:
        await self.queue.aclose()
        self.queue = RedisErrorQueue(self.url)
        return self.queue

    def put_raw(self, data: bytes) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.xadd("voicethere:session-errors", {"item": data})


class SpooledRedis(Redis):
    def __init__(self, url: str, spool: Path) -> None:
        self.url = url
        self.spool = spool
        self.queue = SpooledErrorQueue(RedisErrorQueue(url, consumer="worker-1"), spool)

    async def reopen(self) -> ErrorQueuePort:
        await self.queue.aclose()
        self.queue = SpooledErrorQueue(RedisErrorQueue(self.url, consumer="worker-1"), self.spool)
        return self.queue


async def new_backend(kind: str, path: Path, stack: AsyncExitStack) -> Backend:
    match kind:
        case "embedded":
            return Embedded(path)
        case "spooled":
            return Spooled(path)
        case "sampled":
            return Sampled(path)
        case "redis":
            return Redis((await stack.enter_async_context(redis_server())).url)
        case "spooled_redis":
            server = await stack.enter_async_context(redis_server())
            return SpooledRedis(server.unix_url, path.parent / "spool")
        case _:
            return InMemory()


@pytest.fixture(params=["embedded", "spooled", "sampled", "redis", "spooled_redis", "in_memory"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    async with AsyncExitStack() as stack:
        backend = await new_backend(request.param, tmp_path / "queue.db", stack)
        yield backend
        await backend.queue.aclose()


def ids(deliveries: list[Delivery]) -> list[str]:
    return [d.item.record.id if isinstance(d.item, ErrorItem) else "?" for d in deliveries]


async def everything(queue: ErrorQueuePort) -> list[Delivery]:
    found: list[Delivery] = []
    while batch := await queue.receive(limit=100, wait_seconds=0):
        found += batch
    return found


async def test_items_come_whole_and_in_the_order_in_which_they_were_put(backend: Backend) -> None:
    first = [sample_error(message="ä\u0000\U0001f600"), sample_error()]
    end = SessionEndedItem(
        session_id="s",
        project_id="p",
        end_reason="agent_failed",
        failed=True,
        ended_at="2026-06-19T12:00:00.000Z",
    )
    await backend.queue.put(first)
    await backend.queue.put([end])
    received = await everything(backend.queue)
    assert [delivery.item for delivery in received] == [*first, end]
    assert all(delivery.problem is None for delivery in received)


async def test_putting_nothing_is_nothing(backend: Backend) -> None:
    await backend.queue.put([])
    assert await backend.queue.depth() == 0


async def test_a_limit_is_kept_and_the_rest_comes_next(backend: Backend) -> None:
    items = [sample_error() for _ in range(5)]
    await backend.queue.put(items)
    batches = [await backend.queue.receive(limit=2, wait_seconds=0) for _ in range(4)]
    assert [len(batch) for batch in batches] == [2, 2, 1, 0]
    assert ids([d for batch in batches for d in batch]) == [item.record.id for item in items]


async def test_a_limit_below_one_is_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        await backend.queue.receive(limit=0, wait_seconds=0)


async def test_an_empty_queue_gives_nothing_after_the_wait(backend: Backend) -> None:
    async with asyncio.timeout(SOON):
        assert list(await backend.queue.receive(limit=10, wait_seconds=0.02)) == []


async def test_a_consumer_that_waits_is_woken_by_a_put(backend: Backend) -> None:
    waiting = asyncio.create_task(backend.queue.receive(limit=10, wait_seconds=60))
    item = sample_error()
    async with asyncio.timeout(SOON):
        await backend.queue.put([item])
        assert ids(list(await waiting)) == [item.record.id]


async def test_what_is_in_flight_is_not_given_again_to_the_same_consumer(backend: Backend) -> None:
    await backend.queue.put([sample_error(), sample_error()])
    assert len(await everything(backend.queue)) == 2
    later = sample_error()
    await backend.queue.put([later])
    assert ids(await everything(backend.queue)) == [later.record.id]
    assert await backend.queue.depth() == 3


async def test_unacknowledged_items_come_again_to_the_next_consumer(backend: Backend) -> None:
    items = [sample_error() for _ in range(4)]
    await backend.queue.put(items)
    received = await everything(backend.queue)
    await backend.queue.acknowledge([received[0].position, received[2].position])
    queue = await backend.reopen()
    assert await queue.depth() == 2
    assert ids(await everything(queue)) == [items[1].record.id, items[3].record.id]


async def test_the_oldest_item_tells_what_is_not_committed_yet(backend: Backend) -> None:
    assert await backend.queue.oldest_seconds() is None
    await backend.queue.put([sample_error()])
    first = await backend.queue.oldest_seconds()
    assert first is not None
    assert 0.0 <= first < SOON
    delivered = await everything(backend.queue)
    await backend.queue.put([sample_error()])
    age = await backend.queue.oldest_seconds()
    assert age is not None
    assert age >= first  # being delivered is not being committed
    await backend.queue.acknowledge([delivery.position for delivery in delivered])
    younger = await backend.queue.oldest_seconds()
    assert younger is not None
    await backend.queue.acknowledge([delivery.position for delivery in await everything(backend.queue)])
    assert await backend.queue.oldest_seconds() is None


async def test_acknowledged_items_never_come_again(backend: Backend) -> None:
    await backend.queue.put([sample_error(), sample_error()])
    positions = [delivery.position for delivery in await everything(backend.queue)]
    await backend.queue.acknowledge(positions)
    await backend.queue.acknowledge(positions)
    await backend.queue.acknowledge([])
    queue = await backend.reopen()
    assert await everything(queue) == []
    assert await queue.depth() == 0


async def test_a_position_is_never_used_twice(backend: Backend) -> None:
    """Else an acknowledgement that comes late would delete somebody else's error."""
    await backend.queue.put([sample_error()])
    first = (await everything(backend.queue))[0].position
    await backend.queue.acknowledge([first])
    queue = await backend.reopen()
    await queue.put([sample_error()])
    assert (await everything(queue))[0].position != first


async def test_a_position_that_none_had_is_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match="position"):
        await backend.queue.acknowledge(["1 OR 1=1"])


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"{}", b'{"t":"error"}', b"[" * 100_000, b'{"t":"new"}'])
async def test_poison_comes_with_its_bytes_and_its_problem_between_its_neighbours(
    backend: Backend, data: bytes
) -> None:
    before, behind = sample_error(), sample_error()
    await backend.queue.put([before])
    backend.put_raw(data)
    await backend.queue.put([behind])
    received = await everything(backend.queue)
    assert ids(received) == [before.record.id, "?", behind.record.id]
    assert received[1].item is None
    assert received[1].data == data
    assert received[1].problem is not None
    assert received[1].problem.startswith("not an item of this queue")


async def test_many_puts_at_once_are_all_accepted_in_order(backend: Backend) -> None:
    items = [sample_error() for _ in range(1500)]
    await asyncio.gather(*(backend.queue.put([item]) for item in items))
    assert await backend.queue.depth() == 1500
    assert ids(await everything(backend.queue)) == [item.record.id for item in items]


async def test_two_consumers_at_one_queue_share_the_items(backend: Backend) -> None:
    items = [sample_error() for _ in range(40)]
    await backend.queue.put(items)
    batches = await asyncio.gather(*(backend.queue.receive(limit=10, wait_seconds=0) for _ in range(4)))
    assert sorted(ids([d for batch in batches for d in batch])) == sorted(item.record.id for item in items)


async def test_a_cancelled_receive_takes_nothing_with_it(backend: Backend) -> None:
    waiting = asyncio.create_task(backend.queue.receive(limit=10, wait_seconds=60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    item = sample_error()
    await backend.queue.put([item])
    async with asyncio.timeout(SOON):
        assert ids(list(await backend.queue.receive(limit=10, wait_seconds=60))) == [item.record.id]


async def test_a_closed_queue_says_so(backend: Backend) -> None:
    await backend.queue.aclose()
    for call in (
        backend.queue.put([sample_error()]),
        backend.queue.receive(limit=1, wait_seconds=0),
        backend.queue.acknowledge(["1"]),
        backend.queue.depth(),
    ):
        with pytest.raises(QueueUnavailable, match="closed"):
            await call
