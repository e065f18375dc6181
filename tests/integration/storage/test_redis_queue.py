"""The queue on Redis: what several consumers share, and every way in which Redis can be of no use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio
from structlog.testing import capture_logs

from voicethere.adapters.queue import RedisErrorQueue, stream, stream_consumer
from voicethere.core.ports import Delivery, QueueUnavailable
from voicethere.testing.queue import sample_error
from voicethere.testing.redis_server import RedisServer, redis_server
from voicethere.wire.queue import ErrorItem, QueueItem, SessionEndedItem

SOON = 20.0
KEY = "voicethere:session-errors"


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


@pytest.fixture
async def raw(server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
async def queue(server: RedisServer) -> AsyncIterator[RedisErrorQueue]:
    queue = RedisErrorQueue(server.url)
    yield queue
    await queue.aclose()


@pytest.fixture
async def impatient(server: RedisServer) -> AsyncIterator[RedisErrorQueue]:
    """For a Redis that does not answer."""
    queue = RedisErrorQueue(server.url, answer_seconds=1.0)
    yield queue
    await queue.aclose()


@pytest.fixture
async def other(server: RedisServer) -> AsyncIterator[RedisErrorQueue]:
    """Another worker's, which takes over soon."""
    queue = RedisErrorQueue(server.url, idle_reclaim_seconds=0.2)
    yield queue
    await queue.aclose()


def end_of(session_id: str = "session-1") -> SessionEndedItem:
    return SessionEndedItem(
        session_id=session_id,
        project_id="project-1",
        end_reason="agent_failed",
        failed=True,
        ended_at="2026-06-19T12:00:00.000Z",
    )


async def received(queue: RedisErrorQueue, count: int, *, limit: int = 50) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(SOON):
        while len(found) < count:
            found += await queue.receive(limit=limit, wait_seconds=SOON)
    return found


def items_of(deliveries: list[Delivery]) -> list[QueueItem | None]:
    return [delivery.item for delivery in deliveries]


# ------------------------------------------------------------------ several consumers


async def test_each_item_is_given_to_one_of_two_workers(server: RedisServer, queue: RedisErrorQueue) -> None:
    other = RedisErrorQueue(server.url)  # takes over only what is 10 s old
    items = [sample_error() for _ in range(60)]
    await queue.put(items)
    first, second = await received(queue, 10, limit=10), await received(other, 50)
    await other.aclose()
    given = items_of(first) + items_of(second)
    assert sorted(item.record.id for item in given if isinstance(item, ErrorItem)) == sorted(
        item.record.id for item in items
    )


async def test_what_a_dead_worker_held_is_taken_over_while_another_waits(
    server: RedisServer, queue: RedisErrorQueue, other: RedisErrorQueue
) -> None:
    items = [sample_error() for _ in range(250)]
    await queue.put(items)
    await received(queue, 250, limit=250)  # and is not heard of again
    assert items_of(await received(other, 250)) == items


async def test_what_a_closed_worker_held_is_free_at_once(server: RedisServer, queue: RedisErrorQueue) -> None:
    leaving = RedisErrorQueue(server.url)
    await queue.put([sample_error(), sample_error()])
    (held,) = await received(leaving, 1, limit=1)
    await leaving.aclose()
    assert held.item in items_of(await received(queue, 2))


async def test_a_worker_of_the_same_name_goes_on_where_the_last_one_died(server: RedisServer) -> None:
    first = RedisErrorQueue(server.url, consumer="worker-1")
    items = [sample_error() for _ in range(5)]
    await first.put(items)
    taken = await received(first, 5)
    await first.acknowledge([taken[0].position])
    second = RedisErrorQueue(server.url, consumer="worker-1")
    later = sample_error()
    await second.put([later])
    assert items_of(await received(second, 5)) == [*items[1:], later]
    await second.aclose()
    await first.aclose()


async def test_an_end_waits_until_the_errors_in_front_of_it_are_stored_by_whoever_has_them(
    queue: RedisErrorQueue, other: RedisErrorQueue
) -> None:
    error, end, next_error = sample_error(), end_of(), sample_error("session-2")
    patient = queue  # takes over only what is 10 s old
    await patient.put([error])
    (held,) = await received(other, 1)
    await patient.put([end, next_error])
    # Errors wait for nobody.
    assert items_of(await received(patient, 1)) == [next_error]
    assert list(await patient.receive(limit=10, wait_seconds=0.05)) == []
    await other.acknowledge([held.position])
    assert items_of(await received(patient, 1)) == [end]


async def test_ends_that_wait_for_each_other_all_come(server: RedisServer, queue: RedisErrorQueue) -> None:
    other = RedisErrorQueue(server.url)  # takes over only what is 10 s old
    await queue.put([item for number in range(20) for item in (sample_error(), end_of(f"s{number}"))])

    async def work(consumer: RedisErrorQueue, stored: list[QueueItem | None]) -> None:
        while len(stored) < 40:
            batch = await consumer.receive(limit=3, wait_seconds=0.05)
            stored += items_of(list(batch))
            await consumer.acknowledge([delivery.position for delivery in batch])

    stored: list[QueueItem | None] = []
    async with asyncio.timeout(SOON):
        await asyncio.gather(work(queue, stored), work(other, stored))
    assert len(stored) == 40
    assert sum(isinstance(item, SessionEndedItem) for item in stored) == 20
    await other.aclose()


async def test_consumers_that_are_long_gone_are_forgotten_and_those_that_hold_something_are_not(
    queue: RedisErrorQueue,
    server: RedisServer,
    raw: redis.asyncio.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await raw.xgroup_create(KEY, stream.GROUP, "0", mkstream=True)
    for name in ("gone", "holds"):
        await raw.xgroup_createconsumer(KEY, stream.GROUP, name)
    await queue.put([sample_error()])
    await raw.xreadgroup(stream.GROUP, "holds", {KEY: ">"})
    monkeypatch.setattr(stream_consumer, "_GONE_SECONDS", -1.0)
    assert list(await queue.receive(limit=1, wait_seconds=0)) == []
    names = {consumer["name"] for consumer in await raw.xinfo_consumers(KEY, stream.GROUP)}
    assert b"gone" not in names
    assert b"holds" in names


# ------------------------------------------------------------------ what others do to the stream


async def test_a_redis_that_was_emptied_is_used_again_at_once(
    queue: RedisErrorQueue, raw: redis.asyncio.Redis
) -> None:
    await queue.put([sample_error()])
    await received(queue, 1)
    await raw.flushall()
    item = sample_error()
    waiting = asyncio.create_task(received(queue, 1))
    await queue.put([item])
    assert items_of(await waiting) == [item]


async def test_what_was_given_and_is_held_by_nobody_is_given_again(
    other: RedisErrorQueue, raw: redis.asyncio.Redis
) -> None:
    first, second = sample_error(), sample_error()
    await other.put([first])
    await other.acknowledge([(await received(other, 1))[0].position])
    await other.put([second])
    # As in a Redis that came back without the end of its log: all was read, and is pending with nobody.
    await raw.xgroup_setid(KEY, stream.GROUP, "$")
    with capture_logs() as logs:
        (delivery,) = await received(other, 1)
    assert isinstance(delivery.item, ErrorItem)
    assert delivery.item.record.id == second.record.id
    assert "queue_items_given_to_nobody" in {entry["event"] for entry in logs}
    await other.acknowledge([delivery.position])
    assert await other.depth() == 0
    third = sample_error()
    await other.put([third])
    assert [d.item for d in await received(other, 1)] == [third]


async def test_an_entry_that_somebody_deleted_disturbs_nobody(
    queue: RedisErrorQueue, server: RedisServer, raw: redis.asyncio.Redis
) -> None:
    first = RedisErrorQueue(server.url, consumer="worker-1")
    await first.put([sample_error(), sample_error()])
    lost, kept = await received(first, 2)
    await raw.xdel(KEY, lost.position)
    second = RedisErrorQueue(server.url, consumer="worker-1")
    with capture_logs() as logs:
        assert items_of(await received(second, 1)) == [kept.item]
    assert [log["first"] for log in logs if log["event"] == "queue_items_deleted_by_others"] == [
        lost.position
    ]
    assert (await raw.xpending(KEY, stream.GROUP))["pending"] == 1
    await second.aclose()
    await first.aclose()


async def test_an_entry_without_our_field_is_poison_with_what_it_has(
    queue: RedisErrorQueue, raw: redis.asyncio.Redis
) -> None:
    await raw.xadd(KEY, {"other": b"\xff", "more": "x"})
    (delivery,) = await received(queue, 1)
    assert delivery.item is None
    assert delivery.problem is not None
    assert "field" in delivery.problem
    assert b'"other"' in delivery.data


async def test_one_read_takes_a_bounded_number_of_bytes(
    queue: RedisErrorQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_READ_BYTES", 100_000)
    monkeypatch.setattr(stream, "PAGE", 4)
    items = [sample_error(stack="x" * 20_000) for _ in range(20)]
    await queue.put(items)
    batch = list(await queue.receive(limit=20, wait_seconds=SOON))
    assert len(batch) == 8
    assert items_of([*batch, *await received(queue, 12)]) == items


# ------------------------------------------------------------------ a Redis that is of no use now


async def test_a_paused_redis_is_unavailable_soon_and_everything_goes_on_after_it(
    server: RedisServer, impatient: RedisErrorQueue
) -> None:
    first = sample_error()
    await impatient.put([first])
    server.pause()
    async with asyncio.timeout(SOON):
        results = await asyncio.gather(
            *(impatient.put([sample_error()]) for _ in range(5)),
            impatient.receive(limit=10, wait_seconds=60),
            impatient.acknowledge(["1-1"]),
            impatient.depth(),
            return_exceptions=True,
        )
    assert [type(result) for result in results] == [QueueUnavailable] * 8
    server.resume()
    last = sample_error()
    await impatient.put([last])
    found = items_of(await received(impatient, 2))
    # What was put while nobody answered may be there: its producer was told to put it again.
    while found[-1] != last:
        found += items_of(await received(impatient, 1))
    assert found[0] == first


async def test_what_a_lost_answer_took_with_it_is_given_again(
    server: RedisServer, impatient: RedisErrorQueue, raw: redis.asyncio.Redis
) -> None:
    seen, lost, new = sample_error(), sample_error(), sample_error()
    await impatient.put([seen])
    assert items_of(await received(impatient, 1)) == [seen]
    await impatient.put([lost])
    # Given to this consumer by Redis, but never seen by it: the answer did not arrive.
    (consumer,) = await raw.xinfo_consumers(KEY, stream.GROUP)
    await raw.xreadgroup(stream.GROUP, consumer["name"], {KEY: ">"})
    server.pause()
    with pytest.raises(QueueUnavailable, match=r"did not answer|Timeout"):
        await impatient.receive(limit=10, wait_seconds=60)
    server.resume()
    await impatient.put([new])
    assert items_of(await received(impatient, 2)) == [lost, new]


async def test_a_redis_without_memory_takes_nothing_and_gives_what_it_has(
    queue: RedisErrorQueue, raw: redis.asyncio.Redis
) -> None:
    item = sample_error()
    await queue.put([item])  # this worker has not received anything yet
    await raw.config_set("maxmemory", "1")
    with pytest.raises(QueueUnavailable, match="maxmemory"):
        await queue.put([sample_error(), sample_error()])
    (delivery,) = await received(queue, 1)
    await queue.acknowledge([delivery.position])
    assert await queue.depth() == 0
    await raw.config_set("maxmemory", "0")
    await queue.put([item])
    assert items_of(await received(queue, 1)) == [item]


async def test_a_replica_is_unavailable(queue: RedisErrorQueue, raw: redis.asyncio.Redis) -> None:
    await raw.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(QueueUnavailable, match="read only"):
        await queue.put([sample_error()])
    with pytest.raises(QueueUnavailable):
        await queue.receive(limit=1, wait_seconds=0)
    await raw.execute_command("REPLICAOF", "NO", "ONE")
    await queue.put([sample_error()])
    assert len(await received(queue, 1)) == 1


async def test_a_key_that_is_something_else_is_said(queue: RedisErrorQueue, raw: redis.asyncio.Redis) -> None:
    await raw.set(KEY, "text")
    for call in (queue.put([sample_error()]), queue.receive(limit=1, wait_seconds=0), queue.depth()):
        with pytest.raises(QueueUnavailable, match="wrong kind of value"):
            await call


async def test_a_redis_that_is_not_there_is_unavailable_at_once_and_closing_works(
    server: RedisServer, queue: RedisErrorQueue
) -> None:
    await server.kill()
    for call in (queue.put([sample_error()]), queue.receive(limit=1, wait_seconds=60), queue.depth()):
        with pytest.raises(QueueUnavailable, match="Redis cannot be used now"):
            await call
    await queue.aclose()


async def test_a_cancelled_receive_strands_nothing(queue: RedisErrorQueue) -> None:
    cancelled = 0
    for turns in range(20):  # from before the item is put until after it is here
        waiting = asyncio.create_task(queue.receive(limit=10, wait_seconds=60))
        item = sample_error()
        putting = asyncio.create_task(queue.put([item]))
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        await putting
        try:
            given = list(await waiting)
        except asyncio.CancelledError:
            cancelled += 1
            given = await received(queue, 1)
        assert items_of(given) == [item]
        await queue.acknowledge([delivery.position for delivery in given])
    assert cancelled


# ------------------------------------------------------------------ passwords


async def test_no_password_is_ever_said() -> None:
    async with redis_server(password="s3cret") as server:
        queue = RedisErrorQueue(server.url)
        await queue.put([sample_error()])
        await queue.aclose()
        wrong = RedisErrorQueue(server.url.replace("s3cret", "wr0ng"))
        with pytest.raises(QueueUnavailable, match="password") as refused:
            await wrong.put([sample_error()])
        assert "wr0ng" not in str(refused.value)
        await wrong.aclose()


@pytest.mark.parametrize("url", ["http://u:s3cret@h", "redis://:s3c/ret@h:6379/0", "redis://h:s3cret/0", ""])
def test_what_is_no_url_of_a_redis_is_said_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis://\[user:password@\]host") as refused:
        RedisErrorQueue(url)
    assert "s3c" not in str(refused.value)
    assert refused.value.__cause__ is None
