"""A worker on a Redis Stream that says how much each of its transactions stored: a child to be killed.

Arguments: the URL of Redis, the database's URL, the batch's size, how long before it takes over from others.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import structlog

from voicethere.adapters.queue import RedisErrorQueue
from voicethere.adapters.store import Store
from voicethere.roles.sessions.worker import Worker


async def main(redis_url: str, database_url: str, batch: int, idle_seconds: float) -> None:
    queue = RedisErrorQueue(redis_url, idle_reclaim_seconds=idle_seconds)
    store = await Store.open(database_url)
    await Worker(
        queue, store, batch=batch, on_committed=lambda committed: print(committed.inserted, flush=True)
    ).run()


# Standard output is for the numbers.
structlog.configure(
    wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
)
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
