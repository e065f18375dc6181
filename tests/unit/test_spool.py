"""The producer's spool: what is accepted while the queue is away comes into it later, in order."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicethere.adapters.queue.spool import SpooledErrorQueue
from voicethere.adapters.queue.spool_file import SpoolFile, left_behind
from voicethere.core.ports import QueueUnavailable
from voicethere.testing.queue import InMemoryErrorQueue, sample_error
from voicethere.wire.queue import ErrorItem, QueueItem, SessionEndedItem, encode

SOON = 30.0
RESERVE = 64 * 1024
HEADER = 12


class Producer:
    """A queue that can be taken away, and the spool in front of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.behind = InMemoryErrorQueue()
        self.opened: list[SpooledErrorQueue] = []
        self.queue = self.start()

    def start(self, **options: int) -> SpooledErrorQueue:
        """What the next process would open on the same directory."""
        self.queue = SpooledErrorQueue(
            self.behind,
            self.directory,
            **{"reserve_bytes": RESERVE, "longest_pause_seconds": 0.005, **options},  # type: ignore[arg-type]
        )
        self.opened.append(self.queue)
        return self.queue

    async def die(self) -> None:
        """As after SIGKILL: nothing is written any more, and the kernel frees the locks."""
        queue = self.queue
        queue._closed = True
        if queue._replaying is not None:
            queue._replaying.cancel()
            await asyncio.wait([queue._replaying])
        for file in queue._files():
            file.close()

    async def arrived(self, count: int) -> list[str]:
        """The ids of what is in the queue, once there are so many."""
        async with asyncio.timeout(SOON):
            while await self.behind.depth() < count:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.001)
        return [name(d.item) for d in await self.behind.receive(limit=100_000, wait_seconds=0)]


def name(item: QueueItem | None) -> str:
    match item:
        case ErrorItem(record=record):
            return record.id
        case SessionEndedItem(session_id=session_id):
            return f"end of {session_id}"
        case _:
            return "?"


def errors(*ids: str, stack: str = "x") -> list[ErrorItem]:
    return [sample_error(id=error_id, stack=stack) for error_id in ids]


def files(directory: Path) -> list[str]:
    return sorted(path.suffix for path in directory.iterdir())


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not what():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.001)


@pytest.fixture
async def producer(tmp_path: Path) -> AsyncIterator[Producer]:
    producer = Producer(tmp_path / "spool")
    yield producer
    for queue in producer.opened:
        if queue._closed:
            queue._disk.shutdown()
        else:
            await queue.aclose()


async def test_while_the_queue_works_nothing_is_spooled(producer: Producer) -> None:
    await producer.queue.put(errors("a"))
    assert producer.queue.spooled == 0
    assert await producer.arrived(1) == ["a"]


async def test_what_comes_while_the_queue_is_away_is_accepted_and_arrives_in_order(
    producer: Producer,
) -> None:
    await producer.queue.put(errors("a"))
    producer.behind.unavailable = "the file is locked"
    end = SessionEndedItem(
        session_id="s", project_id="p", end_reason="error", failed=True, ended_at="2026-06-19T12:00:00.000Z"
    )
    await producer.queue.put([*errors("b", "c"), end])
    await producer.queue.put(errors("d"))
    assert producer.queue.spooled == 4
    producer.behind.unavailable = None
    # Behind what waits, although the queue works again.
    await producer.queue.put(errors("e"))
    assert await producer.arrived(6) == ["a", "b", "c", "end of s", "d", "e"]
    await until(lambda: not producer.queue._is_behind())
    await producer.queue.put(errors("f"))
    assert producer.queue.spooled == 0


async def test_items_that_wait_count_as_not_acknowledged(producer: Producer) -> None:
    await producer.queue.put(errors("a"))
    put = producer.behind.put

    async def refuse(items: Sequence[QueueItem]) -> None:
        raise QueueUnavailable("the file is locked")

    producer.behind.put = refuse  # type: ignore[method-assign]
    await producer.queue.put(errors("b"))
    assert await producer.queue.depth() == 2
    producer.behind.put = put  # type: ignore[method-assign]
    await producer.arrived(2)


async def test_the_space_is_used_again(producer: Producer) -> None:
    (file,) = await _spooled_and_replayed(producer, errors("a", stack="x" * 3 * RESERVE))
    assert file.stat().st_size == RESERVE
    assert not any(file.read_bytes())
    (same,) = await _spooled_and_replayed(producer, errors("b"))
    assert same == file


async def _spooled_and_replayed(producer: Producer, items: list[ErrorItem]) -> list[Path]:
    there = await producer.behind.depth()
    producer.behind.unavailable = "the file is locked"
    await producer.queue.put(items)
    producer.behind.unavailable = None
    await producer.arrived(there + len(items))
    own = producer.queue._own
    assert own is not None
    await until(lambda: own.end == 0)
    return left_behind(producer.directory)


# ------------------------------------------------------------------ processes that die


async def test_the_next_process_replays_what_a_dead_one_had_accepted(producer: Producer) -> None:
    producer.behind.unavailable = "the file is locked"
    for number in range(3):
        await producer.queue.put(errors(f"first-{number}"))
        await producer.die()
        producer.start()
    await producer.queue.open()
    assert producer.queue.spooled == 3
    await producer.queue.put(errors("second"))
    producer.behind.unavailable = None
    assert await producer.arrived(4) == ["first-0", "first-1", "first-2", "second"]
    await until(lambda: len(left_behind(producer.directory)) == 1)


async def test_replaying_begins_when_it_is_opened(producer: Producer) -> None:
    producer.behind.unavailable = "the file is locked"
    await producer.queue.put(errors("a"))
    await producer.die()
    producer.behind.unavailable = None
    await producer.start().open()
    assert await producer.arrived(1) == ["a"]


async def test_a_process_that_ends_in_order_leaves_what_waits_and_nothing_else(producer: Producer) -> None:
    await producer.queue.open()
    other = SpooledErrorQueue(InMemoryErrorQueue(), producer.directory, reserve_bytes=0)
    await other.open()
    assert files(producer.directory) == [".spool", ".spool"]
    await other.aclose()
    assert files(producer.directory) == [".spool"]
    producer.behind.unavailable = "the file is locked"
    await producer.queue.put(errors("a"))
    await producer.queue.aclose()
    assert files(producer.directory) == [".spool"]
    with pytest.raises(QueueUnavailable, match="closed"):
        await producer.queue.put(errors("b"))


async def test_a_live_process_keeps_its_file(producer: Producer) -> None:
    producer.behind.unavailable = "the file is locked"
    await producer.queue.put(errors("a"))
    mine = left_behind(producer.directory)[0]
    neighbour = InMemoryErrorQueue()
    other = SpooledErrorQueue(neighbour, producer.directory)
    await other.put(errors("b"))
    assert await neighbour.depth() == 1
    assert other.spooled == 0
    assert mine.exists()
    await other.aclose()


async def test_what_was_accepted_is_there_after_sigkill(producer: Producer) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        str(producer.directory),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stderr is not None
    accepted = [(await child.stderr.readline()).decode().strip() for _ in range(20)]
    child.kill()
    accepted += (await child.stderr.read()).decode().split()
    await child.wait()
    await producer.queue.open()
    found = await producer.arrived(len(accepted))
    assert found[: len(accepted)] == accepted
    assert len(found) <= len(accepted) + 1  # one may have been accepted that nobody was told of


KILLED = """
import asyncio, sys
from pathlib import Path
from voicethere.adapters.queue import SpooledErrorQueue
from voicethere.testing.queue import InMemoryErrorQueue, sample_error

async def main():
    behind = InMemoryErrorQueue()
    behind.unavailable = "locked"
    queue = SpooledErrorQueue(behind, Path(sys.argv[1]), reserve_bytes=4096)
    number = 0
    while True:
        await queue.put([sample_error(id=f"e-{number}", stack="y" * (number * 37 % 3000))])
        print(f"e-{number}", file=sys.stderr, flush=True)
        number += 1

asyncio.run(main())
"""


# ------------------------------------------------------------------ damage


async def _left(producer: Producer, *ids: str) -> Path:
    """The file of a dead process with these items."""
    producer.behind.unavailable = "the file is locked"
    for error_id in ids:
        await producer.queue.put(errors(error_id))
    await producer.die()
    producer.behind.unavailable = None
    (file,) = left_behind(producer.directory)
    producer.start()
    return file


@pytest.mark.parametrize("cut", [1, 5, HEADER, HEADER + 1, 200])
async def test_a_torn_last_record_is_dropped(producer: Producer, cut: int) -> None:
    file = await _left(producer, "a", "b")
    frame = len(encode(errors("b")[0])) + HEADER
    with file.open("r+b") as opened:
        opened.seek(2 * frame - cut)
        opened.write(bytes(cut))  # as reserved space looks that was never written
    await producer.queue.open()
    assert await producer.arrived(1) == ["a"]
    await until(lambda: not file.exists())
    assert files(producer.directory) == [".spool"]


async def test_a_torn_record_at_the_end_of_the_file_is_dropped(producer: Producer) -> None:
    file = await _left(producer, "a", "b")
    frame = len(encode(errors("b")[0])) + HEADER
    os.truncate(file, 2 * frame - 7)
    await producer.queue.open()
    assert await producer.arrived(1) == ["a"]


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_damaged_record_is_set_aside_and_its_neighbours_arrive(
    producer: Producer, which: int
) -> None:
    file = await _left(producer, "a", "b", "c")
    frame = len(encode(errors("a")[0])) + HEADER
    with file.open("r+b") as opened:
        opened.seek(which * frame + 40)
        opened.write(b"\xff\xff\xff")
    damaged = file.read_bytes()[which * frame : (which + 1) * frame]
    await producer.queue.open()
    assert await producer.arrived(2) == [error_id for n, error_id in enumerate("abc") if n != which]
    await until(lambda: not file.exists())
    (aside,) = producer.directory.glob("*.damaged")
    assert aside.read_bytes().rstrip(b"\0") == damaged


async def test_a_length_that_cannot_be_is_damage(producer: Producer) -> None:
    file = await _left(producer, "a", "b")
    with file.open("r+b") as opened:
        opened.seek(4)
        opened.write(struct.pack(">I", 0xFFFF_FFF0))
    await producer.queue.open()
    assert await producer.arrived(1) == ["b"]
    await until(lambda: len(list(producer.directory.glob("*.damaged"))) == 1)


async def test_a_record_of_a_foreign_version_is_set_aside(producer: Producer) -> None:
    file = await _left(producer, "a")
    other = SpoolFile.create(producer.directory, reserve_bytes=0)
    other.append([b'{"t":"from-the-future"}', encode(errors("b")[0])])
    other.close()
    await producer.queue.open()
    assert await producer.arrived(2) == ["a", "b"]
    await until(lambda: not file.exists() and not other.path.exists())
    (aside,) = producer.directory.glob("*.damaged")
    assert b"from-the-future" in aside.read_bytes()


@settings(max_examples=60, deadline=None)
@given(
    payloads=st.lists(st.binary(max_size=60).map(bytes.hex).map(str.encode), min_size=1, max_size=6),
    at=st.integers(0, 400),
    junk=st.binary(min_size=1, max_size=30),
)
def test_whatever_happens_to_the_bytes_all_other_records_are_found(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], at: int, junk: bytes
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    file = SpoolFile.create(directory, reserve_bytes=0)
    file.append(payloads)
    file.close()
    starts = [0]
    for payload in payloads:
        starts.append(starts[-1] + HEADER + len(payload))
    with file.path.open("r+b") as opened:
        opened.seek(min(at, starts[-1]))
        opened.write(junk)
    intact = [
        payload
        for number, payload in enumerate(payloads)
        if starts[number + 1] <= at or starts[number] >= at + len(junk)
    ]
    adopted = SpoolFile.adopt(file.path)
    assert adopted is not None
    found = [record.data for record in adopted.records()]
    adopted.close()
    remaining = iter(found)
    assert all(payload in remaining for payload in intact)
    assert all(data in payloads for data in found)


# ------------------------------------------------------------------ limits


async def test_a_full_spool_says_so_and_takes_items_again_later(producer: Producer) -> None:
    queue = producer.start(max_bytes=6000)
    producer.behind.unavailable = "the file is locked"
    await queue.put(errors("a", stack="x" * 3000))
    with pytest.raises(QueueUnavailable, match=r"the spool is full.*1 items wait in the spool") as refused:
        await queue.put(errors("b", stack="x" * 3000))
    assert "bring the queue back" in str(refused.value)
    await queue.put(errors("c"))
    producer.behind.unavailable = None
    assert await producer.arrived(2) == ["a", "c"]
    await until(lambda: not queue._is_behind())
    await queue.put(errors("b", stack="x" * 3000))


async def test_without_a_spool_the_queue_still_works_and_both_reasons_are_named(producer: Producer) -> None:
    producer.directory.write_text("not a directory")
    await producer.queue.put(errors("a"))
    producer.behind.unavailable = "the file is locked"
    with pytest.raises(QueueUnavailable, match=r"the file is locked.*spool"):
        await producer.queue.put(errors("b"))
    producer.directory.unlink()
    await producer.queue.put(errors("b"))  # the directory can be made now
    producer.behind.unavailable = None
    assert await producer.arrived(2) == ["a", "b"]


async def test_many_puts_at_once_are_spooled_in_order(producer: Producer) -> None:
    producer.behind.unavailable = "the file is locked"
    ids = [f"e-{number}" for number in range(500)]
    await asyncio.gather(*(producer.queue.put(errors(error_id)) for error_id in ids))
    producer.behind.unavailable = None
    assert await producer.arrived(500) == ids
