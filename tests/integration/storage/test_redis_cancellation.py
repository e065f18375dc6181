"""What waits for Redis can be cancelled at any moment, and then ends: on either of our ways to it.

With the client library's own time limit for answers it does not, on Python 3.11: `asyncio.wait_for` swallows
a cancellation that comes in the same turn of the loop as the answer. A runner's link that was given up in
such a moment stayed half alive, and its sessions were lost (found by the torture run).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from voicethere.adapters.queue.redis_link import connect
from voicethere.adapters.relay.redis_client import open_client
from voicethere.testing.redis_server import RedisServer, redis_server

TURNS = 40
"""A command takes fewer turns of the loop than that: each of its moments is hit."""
ROUNDS = 3


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server() as started:
        yield started


def for_queue(url: str) -> Redis:
    return connect(url, answer_seconds=5.0)


@pytest.mark.parametrize("client_of", [open_client, for_queue])
async def test_a_command_that_is_cancelled_ends(
    server: RedisServer, client_of: Callable[[str], Redis]
) -> None:
    client = client_of(server.url + "?socket_timeout=5")

    async def ask_for_ever() -> None:
        while True:
            await client.publish("channel", "message")

    await client.ping()
    survived = []
    for turns in range(1, TURNS * ROUNDS + 1):
        asking = asyncio.create_task(ask_for_ever())
        for _ in range(1 + turns % TURNS):
            await asyncio.sleep(0)
        asking.cancel()
        done, _ = await asyncio.wait([asking], timeout=5)
        if not done:
            survived.append(turns)
        while not asking.done():
            asking.cancel()
            await asyncio.wait([asking], timeout=0.05)
    await client.aclose()
    await client.connection_pool.disconnect()
    assert survived == []
