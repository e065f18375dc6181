"""The way to a Redis: one client per purpose, every failure said as QueueUnavailable, nothing hangs.

Knows the client library, its time limits and its exceptions. Knows nothing of streams or items.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from voicethere.core.ports import QueueUnavailable

_RAW_REPLIES = ("XREADGROUP", "XAUTOCLAIM", "XCLAIM", "XPENDING", "XINFO CONSUMERS")


def connect(url: str, *, answer_seconds: float) -> Redis:
    """A client that waits at most `answer_seconds` for a connection, and tries nothing twice by itself.

    For answers it waits without end: whoever uses it does so within `answered`. (The client's own time limit
    is made with `asyncio.wait_for`, which on Python 3.11 now and then swallows a cancellation, and with it
    the end of `answered`.)

    Connects when it is first used; replies of the stream commands are given as Redis sent them (RESP2).

    Raises:
        ValueError: not the URL of a Redis; the words do not repeat it, for it may hold a password.
    """
    try:
        pool = ConnectionPool.from_url(url)
    except Exception:
        raise ValueError(
            "not the URL of a Redis: expected redis://[user:password@]host[:port][/database], rediss://… for "
            "TLS, or unix:///path/to/socket; percent-encode what is special in a password"
        ) from None
    # Behind what the URL's own options say: the rest of this package relies on these.
    pool.connection_kwargs.update(
        socket_timeout=None,
        socket_connect_timeout=answer_seconds,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        decode_responses=False,
        protocol=2,
        health_check_interval=0,
    )
    client = Redis(connection_pool=pool)
    for command in _RAW_REPLIES:
        client.set_response_callback(command, _as_it_came)
    return client


@asynccontextmanager
async def answered(seconds: float) -> AsyncIterator[None]:
    """What is done within has `seconds` in all.

    Raises:
        QueueUnavailable: it failed, or took longer; whether Redis did it is then not known.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise QueueUnavailable(f"Redis did not answer within {seconds:g} s") from error
    except (RedisError, OSError) as error:
        raise QueueUnavailable(f"Redis cannot be used now: {error}") from error


async def disconnect(client: Redis) -> None:
    """Close its connections, whatever state they are in."""
    try:
        await client.aclose()
        await client.connection_pool.disconnect()
    except (RedisError, OSError):
        return  # they are gone already


def _as_it_came(response: Any, **_: Any) -> Any:
    return response
