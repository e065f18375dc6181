"""What every lease must do, asked of the file's, of Redis', and of the in-memory fake."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from voicethere.adapters.relay.lease_file import EmbeddedLease
from voicethere.adapters.relay.redis_lease import RedisLease
from voicethere.core.ports import Lease
from voicethere.testing.clock import ManualClock
from voicethere.testing.redis_server import RedisServer, redis_server
from voicethere.testing.relay import InMemoryLeases

NewLease = Callable[[], Lease]

LONG = 60.0
"""Seconds of a lease that is not to lapse while a test goes on, however slow the machine."""
PATIENCE = 30.0
"""Seconds for what takes milliseconds where nobody else wants the processor."""


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server(password="s3cret-word") as server:
        yield server


@pytest.fixture(params=["file", "redis", "memory"])
async def new_lease(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NewLease]:
    async with AsyncExitStack() as stack:
        leases = InMemoryLeases(seconds=LONG)
        url = (await stack.enter_async_context(redis_server())).url if request.param == "redis" else ""

        def make() -> Lease:
            if request.param == "file":
                return EmbeddedLease(tmp_path / "lock", seconds=LONG)
            return leases.new_lease() if request.param == "memory" else RedisLease(url, seconds=LONG)

        def new() -> Lease:
            lease = make()
            stack.push_async_callback(lease.aclose)
            return lease

        yield new


async def test_only_one_holds_it(new_lease: NewLease) -> None:
    leases = [new_lease() for _ in range(5)]
    held = [await lease.hold() for lease in leases]
    assert held == [True, False, False, False, False]
    assert [await lease.hold() for lease in leases] == held
    assert sum(await asyncio.gather(*(lease.hold() for lease in leases))) == 1


async def test_of_many_who_ask_at_once_one_gets_it(new_lease: NewLease) -> None:
    leases = [new_lease() for _ in range(8)]
    assert sum(await asyncio.gather(*(lease.hold() for lease in leases))) == 1


async def test_it_says_how_long_it_lasts(new_lease: NewLease) -> None:
    assert new_lease().seconds == LONG


async def test_the_next_one_has_it_at_once_after_a_release(new_lease: NewLease) -> None:
    first, second = new_lease(), new_lease()
    assert await first.hold()
    assert not await second.hold()
    await first.release()
    assert await second.hold()
    assert not await first.hold()


async def test_who_does_not_hold_it_cannot_release_it(new_lease: NewLease) -> None:
    first, second, third = new_lease(), new_lease(), new_lease()
    assert await first.hold()
    assert not await second.hold()
    await second.release()
    await second.aclose()
    assert not await third.hold()
    assert await first.hold()


async def test_who_leaves_gives_it_back_for_good(new_lease: NewLease) -> None:
    first, second = new_lease(), new_lease()
    assert await first.hold()
    await first.aclose()
    await first.aclose()
    assert await second.hold()
    await second.release()
    assert not await first.hold()
    assert await second.hold()


# ------------------------------------------------------------------ in memory


async def test_in_memory_a_holder_finds_out_that_it_lost_it() -> None:
    leases = InMemoryLeases()
    first, second = leases.new_lease(), leases.new_lease()
    assert await first.hold()
    leases.expire()
    assert not await first.hold()  # once, though nobody has it
    assert await second.hold()
    assert not await first.hold()
    leases.available = False
    assert not await second.hold()
    leases.available = True
    assert await second.hold()


# ------------------------------------------------------------------ on a file


_HOLDER = """
import asyncio, sys
from pathlib import Path
from voicethere.adapters.relay.lease_file import EmbeddedLease

async def main():
    print(await EmbeddedLease(Path(sys.argv[1])).hold(), flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


async def test_the_file_lease_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _HOLDER,
        str(path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    lease = EmbeddedLease(path)
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"True\n"
        assert not await lease.hold()
        process.send_signal(signal.SIGKILL)
        await process.wait()
        assert await lease.hold()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await lease.aclose()


async def test_a_file_lease_whose_file_is_gone_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = EmbeddedLease(path), EmbeddedLease(path)
    assert await first.hold()
    path.unlink()
    assert await second.hold()
    assert not await first.hold()
    assert not await first.hold()
    await first.aclose()
    assert await second.hold()
    await second.aclose()


async def test_a_file_lease_without_its_directory_is_nobodys(tmp_path: Path) -> None:
    lease = EmbeddedLease(tmp_path / "not there" / "lock")
    assert not await lease.hold()
    (tmp_path / "not there").mkdir()
    assert await lease.hold()
    assert (tmp_path / "not there" / "lock").stat().st_mode & 0o777 == 0o600
    await lease.aclose()


# ------------------------------------------------------------------ on Redis


async def _until_held(lease: Lease) -> float:
    """Ask until it is held; when (`time.monotonic()`) the asking began that got it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            asked_at = time.monotonic()
            if await lease.hold():
                return asked_at
            await asyncio.sleep(0.02)  # Redis' clock lets it lapse: only asking shows that


async def test_on_redis_it_lapses_when_its_holder_does_not_renew_it(server: RedisServer) -> None:
    seconds = 0.3
    first = RedisLease(server.url, seconds=seconds)
    second = RedisLease(server.url, seconds=LONG)
    # So short a lease leaves Redis a tenth of a second to answer: the first try may be in vain.
    held_at = await _until_held(first)
    await _until_held(second)
    assert time.monotonic() - held_at >= seconds - 0.01  # Redis counts whole milliseconds
    assert not await first.hold()
    assert await second.hold()
    await first.aclose()
    await second.aclose()


async def test_a_holder_that_was_paused_finds_out_by_its_own_clock(server: RedisServer) -> None:
    clock = ManualClock()
    lease = RedisLease(server.url, seconds=LONG, clock=clock)
    assert await lease.hold()
    clock.advance(LONG - 0.1)
    assert await lease.hold()
    clock.advance(LONG)
    # To Redis, no time has gone by; the holder cannot know that.
    assert not await lease.hold()
    assert await lease.hold()  # taken anew
    await lease.aclose()


async def test_a_paused_holder_does_not_take_it_from_its_successor(server: RedisServer) -> None:
    clock = ManualClock()
    first = RedisLease(server.url, seconds=LONG, clock=clock)
    second = RedisLease(server.url, seconds=LONG)
    assert await first.hold()
    async with Redis.from_url(server.url) as client:
        assert await client.delete("voicethere:lease:coordinator") == 1  # as if it had lapsed
    assert await second.hold()
    clock.advance(LONG + 1.0)
    assert not await first.hold()
    assert not await first.hold()
    await first.release()
    assert await second.hold()
    await first.aclose()
    await second.aclose()


async def test_a_different_prefix_or_name_is_a_different_lease(server: RedisServer) -> None:
    leases = [
        RedisLease(server.url),
        RedisLease(server.url, prefix="other"),
        RedisLease(server.url, name="other"),
    ]
    assert [await lease.hold() for lease in leases] == [True, True, True]
    for lease in leases:
        await lease.aclose()


async def test_while_redis_is_away_nobody_holds_it_and_no_password_is_told(
    server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = RedisLease(server.url, seconds=1.5)
    await _until_held(lease)
    server.pause()
    assert not await asyncio.wait_for(lease.hold(), 10)
    server.resume()
    await server.kill()
    assert not await lease.hold()
    await server.start()
    await _until_held(lease)
    server.pause()
    await asyncio.wait_for(lease.aclose(), 10)
    server.resume()
    said = capsys.readouterr()
    assert "lease_unavailable" in said.out + said.err
    assert "s3cret-word" not in said.out + said.err


@pytest.mark.parametrize("url", ["http://:s3cret@host", "host:6379", "redis://:s3cret@host:port"])
def test_an_address_that_is_none_is_explained_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="should read redis://") as raised:
        RedisLease(url)
    assert "s3cret" not in str(raised.value)


def test_a_lease_that_nobody_could_keep_is_refused() -> None:
    with pytest.raises(ValueError, match="the least"):
        RedisLease("redis://localhost", seconds=0.01)
