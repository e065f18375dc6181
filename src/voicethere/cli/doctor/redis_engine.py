"""The Redis of the distributed set-up: is it there, what does it promise, how is the error queue doing?

Only looks; the URL's password is never shown.
"""

from __future__ import annotations

import re
import time

from voicethere.adapters.queue.redis_condition import QueueState, RedisSettings, queue_state, redis_settings
from voicethere.cli.doctor.findings import Finding, failed, ok, warning
from voicethere.core.ports import QueueUnavailable

_OLDEST = (6, 2)
_MUCH_WAITS = 100_000
_LONG_IDLE_SECONDS = 60.0
_FULL = 0.9
_REACH = "Start it, or correct --redis-url (or VOICETHERE_REDIS_URL): redis://[user:password@]host:port/0."


async def reachable(url: str) -> Finding:
    """Does it answer, and is it new enough?"""
    began = time.monotonic()
    try:
        settings = await redis_settings(url)
    except (ValueError, QueueUnavailable) as problem:
        return failed(str(problem), _REACH)
    return judge_server(settings, milliseconds=(time.monotonic() - began) * 1000)


def judge_server(settings: RedisSettings, *, milliseconds: float) -> Finding:
    """`milliseconds`: how long it took to connect and ask."""
    found = f"Redis {settings.version} answers in {milliseconds:.1f} ms"
    numbers = tuple(int(number) for number in re.findall(r"\d+", settings.version)[:2])
    if numbers < _OLDEST:
        return failed(found, "Install Redis 6.2 or newer: workers take over from dead ones by XAUTOCLAIM.")
    if settings.role != "master":
        return failed(f"{found}, as a {settings.role}", "Name the primary: a replica takes no errors.")
    return ok(found)


async def durability(url: str) -> Finding:
    """What survives when Redis, or its machine, dies?"""
    try:
        return judge_durability(await redis_settings(url))
    except (ValueError, QueueUnavailable) as problem:
        return failed(str(problem), _REACH)


def judge_durability(settings: RedisSettings) -> Finding:
    """Each way to keep its data, and exactly what it may lose."""
    todo = (
        "Set `appendonly yes` and `appendfsync always` in redis.conf (or by CONFIG SET, then CONFIG REWRITE)."
    )
    if settings.appendonly is None:
        return warning(
            "it does not say whether it keeps a log (CONFIG is refused)",
            "Ask whoever runs it for an append-only file that is synced always: else errors may be lost "
            "that were accepted.",
        )
    if settings.appendonly != "yes":
        return warning(
            "appendonly no: when Redis dies, all errors and ends of sessions that wait in the queue are "
            "lost, although they were accepted",
            todo,
        )
    match settings.appendfsync:
        case "always":
            return ok(
                "appendonly yes, appendfsync always: what is accepted survives the machine, where "
                "`redis-check-aof --fix` mends the log before Redis starts"
            )
        case "everysec":
            return warning(
                "appendfsync everysec: when the machine dies (or only the process, while its disk is slow), "
                "what was accepted in the last second (two at most) is lost",
                todo,
            )
        case None:
            return warning("appendonly yes; it does not say how often it syncs (CONFIG is refused)", todo)
        case other:
            return warning(
                f"appendfsync {other}: when the machine dies, what was accepted since the operating system "
                "last wrote (some 30 s) is lost",
                todo,
            )


async def memory(url: str) -> Finding:
    """What happens when its memory is full?"""
    try:
        return judge_memory(await redis_settings(url))
    except (ValueError, QueueUnavailable) as problem:
        return failed(str(problem), _REACH)


def judge_memory(settings: RedisSettings) -> Finding:
    """Only `noeviction` keeps what it has."""
    used = f"{settings.used_bytes // 1_000_000:,} MB used"
    most = f" of {settings.maxmemory_bytes // 1_000_000:,}" if settings.maxmemory_bytes else ", no limit set"
    found = f"maxmemory-policy {settings.maxmemory_policy or 'unknown'}, {used}{most}"
    if settings.maxmemory_policy != "noeviction":
        return failed(
            f"{found}: when memory is full, Redis may throw away the whole error queue"
            if settings.maxmemory_policy
            else found,
            "Set `maxmemory-policy noeviction`: then producers are refused, and spool until there is room.",
        )
    if settings.maxmemory_bytes and settings.used_bytes > _FULL * settings.maxmemory_bytes:
        return warning(found, "Raise maxmemory, or look why the workers are behind: producers spool soon.")
    return ok(found)


async def queue(url: str) -> Finding:
    """Is somebody storing what is queued?"""
    try:
        return judge_queue(await queue_state(url))
    except (ValueError, QueueUnavailable) as problem:
        return failed(str(problem), _REACH)


def judge_queue(state: QueueState) -> Finding:
    """Things that wait are normal; things that nobody takes are not."""
    found = f"{state.waiting:,} wait to be stored, {state.given:,} of them at one of {state.workers} workers"
    if state.idle_seconds is not None:
        found = f"{found}, the oldest for {state.idle_seconds:.0f} s"
    if state.waiting and not state.workers:
        return warning(found, "Start a worker: `voicethere serve worker`. Until then no error can be read.")
    if state.idle_seconds is not None and state.idle_seconds > _LONG_IDLE_SECONDS:
        return warning(
            found, "The workers hang, or cannot write to the database: look at their log (`worker_waits`)."
        )
    if state.waiting > _MUCH_WAITS:
        return warning(found, "Start further workers, and look at the database.")
    return ok(found)
