"""How this package connects to Redis: nothing is repeated behind its back, and every wait can be cancelled.

A repeated PUBLISH would be heard twice, and a subscription that is renewed silently would hide a gap; so the
client's own retries are off, and whoever uses it begins anew.

So is its time limit for answers: it is made with `asyncio.wait_for`, which on Python 3.11 now and then
swallows a cancellation, and a task that goes on behind a line that was given up is deaf for good. Whoever
asks Redis for something says how long it may take (`asyncio.timeout`).
"""

from __future__ import annotations

import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 2.0
"""How long Redis may take to answer a command."""

REDIS_TROUBLE = (redis.exceptions.RedisError, OSError, TimeoutError)
"""What the client raises where Redis is away, or does not do as asked."""


class RelayUrlInvalid(ValueError):
    """The address of a Redis cannot be understood; the words do not repeat it, as it may hold a password."""


def open_client(url: str, *, connect_seconds: float = CONNECT_SECONDS) -> Redis:
    """A client for `redis://[user:password@]host:port`, `rediss://…` or `unix:///path`; connects when used.

    It waits for answers without end: see above.

    Raises:
        RelayUrlInvalid: it is none of these.
    """
    try:
        client = Redis.from_url(url)
    except ValueError:
        raise RelayUrlInvalid(
            "the address of Redis should read redis://[user:password@]host:port, rediss://… or unix:///path"
        ) from None
    # Behind what the URL's own options say: the rest of this package relies on these.
    client.connection_pool.connection_kwargs.update(
        socket_timeout=None,
        socket_connect_timeout=connect_seconds,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        decode_responses=False,
        health_check_interval=0,
    )
    return client


def check_name(what: str, value: str) -> str:
    """`value`, where it can be part of a channel's or key's name.

    Raises:
        ValueError: it is empty, longer than 200 characters, or holds a control character.
    """
    if not value or len(value) > 200 or not value.isprintable():
        raise ValueError(f"{what} must have 1 to 200 printable characters; it is {value[:220]!r}")
    return value
