"""How this package connects to Redis: short timeouts, and nothing repeated behind its back.

A repeated PUBLISH would be heard twice, and a subscription that is renewed silently would hide a gap; so the
client's own retries are off, and whoever uses it begins anew.
"""

from __future__ import annotations

import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

ANSWER_SECONDS = 2.0
"""How long Redis may take to connect, and to answer a command."""

REDIS_TROUBLE = (redis.exceptions.RedisError, OSError, TimeoutError)
"""What the client raises where Redis is away, or does not do as asked."""


class RelayUrlInvalid(ValueError):
    """The address of a Redis cannot be understood; the words do not repeat it, as it may hold a password."""


def open_client(url: str, *, answer_seconds: float = ANSWER_SECONDS) -> Redis:
    """A client for `redis://[user:password@]host:port`, `rediss://…` or `unix:///path`; connects when used.

    Raises:
        RelayUrlInvalid: it is none of these.
    """
    try:
        return Redis.from_url(
            url,
            socket_timeout=answer_seconds,
            socket_connect_timeout=answer_seconds,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )
    except ValueError:
        raise RelayUrlInvalid(
            "the address of Redis should read redis://[user:password@]host:port, rediss://… or unix:///path"
        ) from None


def check_name(what: str, value: str) -> str:
    """`value`, where it can be part of a channel's or key's name.

    Raises:
        ValueError: it is empty, longer than 200 characters, or holds a control character.
    """
    if not value or len(value) > 200 or not value.isprintable():
        raise ValueError(f"{what} must have 1 to 200 printable characters; it is {value[:220]!r}")
    return value
