"""The queue in front of which storms are sampled: what it queues when, and what an outage does to counts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from voicethere.adapters.queue import SampledErrorQueue
from voicethere.core.ports import QueueUnavailable
from voicethere.core.storm import StormRules
from voicethere.testing.clock import ManualClock
from voicethere.testing.queue import InMemoryErrorQueue, sample_error
from voicethere.wire.queue import ErrorItem, QueueItem, SuppressedItem

RULES = StormRules(burst=5, per_second=1.0, summary_seconds=5.0)
SOON = 30.0


class Naps:
    """Stands in for sleeping: time passes on the clock alone, each nap when the test allows it."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.seconds: list[float] = []
        self.allowed = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await self.allowed.acquire()
        self.clock.advance(seconds)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def naps(clock: ManualClock) -> Naps:
    return Naps(clock)


@pytest.fixture
async def memory() -> InMemoryErrorQueue:
    return InMemoryErrorQueue()


@pytest.fixture
async def queue(memory: InMemoryErrorQueue, clock: ManualClock, naps: Naps) -> SampledErrorQueue:
    return SampledErrorQueue(memory, clock, RULES, sleep=naps.sleep)


def storm(count: int, project_id: str = "a", **changes: Any) -> list[QueueItem]:
    return [sample_error("s", project_id, recoverable=True, **changes) for _ in range(count)]


async def taken(memory: InMemoryErrorQueue, count: int) -> list[QueueItem | None]:
    found: list[QueueItem | None] = []
    async with asyncio.timeout(SOON):
        while len(found) < count:
            found += [d.item for d in await memory.receive(limit=1000, wait_seconds=SOON)]
    return found


def summaries(items: list[QueueItem | None]) -> list[tuple[str, int]]:
    return [(item.project_id, item.count) for item in items if isinstance(item, SuppressedItem)]


async def test_a_storm_is_summed_up_while_it_lasts(
    queue: SampledErrorQueue, memory: InMemoryErrorQueue, naps: Naps
) -> None:
    for item in storm(50):
        await queue.put([item])
    assert len(await taken(memory, 5)) == 5
    assert await memory.depth() == 5
    naps.allowed.release()
    assert summaries(await taken(memory, 1)) == [("a", 45)]
    # Five seconds later, five more are within the budget.
    await queue.put(storm(20))
    naps.allowed.release()
    assert summaries(await taken(memory, 6)) == [("a", 15)]
    await queue.aclose()
    assert naps.seconds == [5.0, 5.0]


async def test_closing_tells_all_counts(queue: SampledErrorQueue, memory: InMemoryErrorQueue) -> None:
    await queue.put([*storm(12), *storm(7, "b"), sample_error("s", "a")])
    await queue.aclose()
    left = memory.reopened()
    items = [delivery.item for delivery in await left.receive(limit=100, wait_seconds=0)]
    assert summaries(items) == [("a", 7), ("b", 2)]
    assert sum(isinstance(item, ErrorItem) for item in items) == 11


async def test_a_put_that_failed_counts_nothing_and_is_decided_again(
    queue: SampledErrorQueue, memory: InMemoryErrorQueue, naps: Naps
) -> None:
    items = storm(8)
    memory.unavailable = "the disk is full"
    for _ in range(20):
        with pytest.raises(QueueUnavailable):
            await queue.put(items)
    memory.unavailable = None
    await queue.put(items)
    naps.allowed.release()
    found = await taken(memory, 6)
    assert found[:5] == items[:5]
    assert summaries(found) == [("a", 3)]
    await queue.aclose()


async def test_summaries_outlast_an_outage_and_are_told_once(
    queue: SampledErrorQueue, memory: InMemoryErrorQueue, naps: Naps
) -> None:
    await queue.put(storm(9))
    await taken(memory, 5)
    memory.unavailable = "nobody is there"
    for _ in range(4):
        naps.allowed.release()
    async with asyncio.timeout(SOON):
        while len(naps.seconds) < 5:  # noqa: ASYNC110 - it waits for the clock of the test
            await asyncio.sleep(0)
    memory.unavailable = None
    naps.allowed.release()
    assert summaries(await taken(memory, 1)) == [("a", 4)]
    await queue.aclose()
    assert await memory.reopened().depth() == 6


async def test_what_cannot_be_told_at_the_end_is_logged(
    queue: SampledErrorQueue, memory: InMemoryErrorQueue, naps: Naps
) -> None:
    await queue.put(storm(9))
    memory.unavailable = "nobody is there"
    for _ in range(10):
        naps.allowed.release()
    with capture_logs() as logs:
        async with asyncio.timeout(SOON):
            await queue.aclose()
    (told,) = [log for log in logs if log["event"] == "suppressions_not_queued"]
    assert (told["project_id"], told["count"], told["problem"]) == ("a", 4, "nobody is there")


async def test_a_put_in_progress_is_counted_before_closing_ends(clock: ManualClock) -> None:
    class Slow(InMemoryErrorQueue):
        def __init__(self) -> None:
            super().__init__()
            self.entered = asyncio.Event()
            self.go_on = asyncio.Event()

        async def put(self, items: object) -> None:
            self.entered.set()
            await self.go_on.wait()
            await super().put(items)  # type: ignore[arg-type]

    slow = Slow()
    queue = SampledErrorQueue(slow, clock, RULES)
    putting = asyncio.create_task(queue.put(storm(8)))
    await slow.entered.wait()
    closing = asyncio.create_task(queue.aclose())
    await asyncio.sleep(0)
    slow.go_on.set()
    await asyncio.gather(putting, closing)
    left = slow.reopened()
    assert summaries([d.item for d in await left.receive(limit=100, wait_seconds=0)]) == [("a", 3)]


async def test_more_than_the_larger_budget_is_stored_and_said_to_the_operator(
    memory: InMemoryErrorQueue, clock: ManualClock
) -> None:
    rules = StormRules(lasting_burst=10)
    queue = SampledErrorQueue(memory, clock, rules)
    with capture_logs() as logs:
        await queue.put([sample_error("s", "a") for _ in range(50)])
    assert await memory.depth() == 50
    assert [log["project_id"] for log in logs if log["event"] == "storm_not_suppressed"] == ["a"]
    await queue.aclose()
