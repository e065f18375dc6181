"""What a Redis promises and how the queue in it is doing, for whoever looks after it.

Only reads. Judges nothing: `voicethere doctor` does.
"""

from __future__ import annotations

from typing import Any

import msgspec
from redis.exceptions import ResponseError

from voicethere.adapters.queue.redis_link import answered, connect, disconnect
from voicethere.adapters.queue.stream import GROUP
from voicethere.wire.queue import QUEUE_NAME


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What redis.conf calls so; None where Redis does not tell (hosted ones often refuse CONFIG)."""

    version: str
    role: str
    appendonly: str | None
    appendfsync: str | None
    maxmemory_policy: str | None
    maxmemory_bytes: int
    used_bytes: int


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """`waiting`: not acknowledged. `given`: of these, given to a worker; `idle_seconds`: how long ago the
    oldest of them was."""

    waiting: int
    given: int
    idle_seconds: float | None
    workers: int


async def redis_settings(url: str, *, answer_seconds: float = 3.0) -> RedisSettings:
    """Raises ValueError where it is no URL of a Redis, QueueUnavailable where nobody answers there."""
    client = connect(url, answer_seconds=answer_seconds)
    try:
        async with answered(answer_seconds):
            info: dict[str, Any] = await client.info()
            settings: dict[str, str | None] = {}
            for name in ("appendonly", "appendfsync", "maxmemory-policy"):
                settings[name] = await _setting(client, name)
    finally:
        await disconnect(client)
    if settings["appendonly"] is None and "aof_enabled" in info:
        settings["appendonly"] = "yes" if info["aof_enabled"] else "no"
    return RedisSettings(
        version=str(info["redis_version"]),
        role=str(info.get("role", "master")),
        appendonly=settings["appendonly"],
        appendfsync=settings["appendfsync"],
        maxmemory_policy=settings["maxmemory-policy"] or info.get("maxmemory_policy"),
        maxmemory_bytes=int(info.get("maxmemory", 0)),
        used_bytes=int(info.get("used_memory", 0)),
    )


async def queue_state(url: str, *, prefix: str = "voicethere", answer_seconds: float = 3.0) -> QueueState:
    """Raises ValueError where it is no URL of a Redis, QueueUnavailable where the queue cannot be read."""
    client = connect(url, answer_seconds=answer_seconds)
    key = f"{prefix}:{QUEUE_NAME}"
    try:
        async with answered(answer_seconds):
            waiting = int(await client.xlen(key))
            groups = [group["name"] for group in await client.xinfo_groups(key)] if waiting else []
            if GROUP.encode() not in groups:
                return QueueState(waiting=waiting, given=0, idle_seconds=None, workers=0)
            consumers = await client.xinfo_consumers(key, GROUP)
            summary: Any = await client.xpending(key, GROUP)
            oldest: Any = await client.xpending_range(key, GROUP, "-", "+", 1)
    finally:
        await disconnect(client)
    return QueueState(
        waiting=waiting,
        given=int(summary[0]),
        idle_seconds=oldest[0][2] / 1000 if oldest else None,
        workers=len(consumers),
    )


async def _setting(client: Any, name: str) -> str | None:
    try:
        found: dict[str, str] = await client.config_get(name)
    except ResponseError:  # not permitted, or not even known
        return None
    return found.get(name)
