"""What waits for one socket: in order, bounded, and what a reader that fell behind is told."""

from __future__ import annotations

import asyncio

import pytest

from voicethere.roles.gateway.frame_queue import CatchUp, Close, FrameQueue


@pytest.fixture
async def queue() -> FrameQueue:
    """One whose socket has been told how things stood at the frame 10."""
    made = FrameQueue(most_frames=4, most_bytes=100)
    assert await made.next() == CatchUp()
    made.caught_up(10)
    return made


async def taken(queue: FrameQueue, count: int) -> list[str | Close | CatchUp]:
    return [await asyncio.wait_for(queue.next(), 1) for _ in range(count)]


async def test_a_socket_hears_first_how_things_stand_then_what_follows() -> None:
    queue = FrameQueue(most_frames=10, most_bytes=100)
    queue.put(1, ["too early: it is in what the socket will be told"])
    assert await queue.next() == CatchUp()
    queue.put(9, ["nine", "ten", "eleven"])
    queue.caught_up(10)
    queue.put(12, ["twelve"])
    assert await taken(queue, 2) == ["eleven", "twelve"]


async def test_frames_that_are_known_already_are_not_told_again(queue: FrameQueue) -> None:
    queue.put(8, ["eight", "nine", "ten", "eleven"])
    assert await taken(queue, 1) == ["eleven"]


@pytest.mark.parametrize("frames", [["f"] * 5, ["f" * 60] * 2])
async def test_a_slow_reader_loses_what_waits_and_is_told_the_latest_instead(
    queue: FrameQueue, frames: list[str]
) -> None:
    queue.put(11, frames)
    assert queue.dropped == len(frames)
    queue.put(20, ["also dropped"])
    assert await taken(queue, 1) == [CatchUp()]
    queue.put(21, ["kept"])
    queue.caught_up(20)
    assert await taken(queue, 1) == ["kept"]
    assert queue.dropped == len(frames) + 1


async def test_who_falls_behind_while_it_is_told_the_latest_is_told_it_again(queue: FrameQueue) -> None:
    queue.fall_behind()
    assert await taken(queue, 1) == [CatchUp()]
    queue.put(11, ["f"] * 5)
    queue.caught_up(11)
    assert await taken(queue, 1) == [CatchUp()]


async def test_a_close_comes_before_what_waits_and_the_first_one_counts(queue: FrameQueue) -> None:
    queue.put(11, ["never sent"])
    queue.close(1001, "the gateway ends")
    queue.close(1008, "too late")
    queue.put(12, ["never kept"])
    assert queue.closing
    assert await taken(queue, 2) == [Close(1001, "the gateway ends")] * 2


async def test_who_waits_is_woken(queue: FrameQueue) -> None:
    waiting = asyncio.create_task(queue.next())
    await asyncio.sleep(0)
    queue.put(11, ["eleven"])
    assert await asyncio.wait_for(waiting, 1) == "eleven"
