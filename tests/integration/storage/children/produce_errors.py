"""Puts errors, several at once, and prints each id after its acknowledgement: a child to be killed.

Arguments: the queue's file, the session, its project, how many producers, how many errors each (0: forever).
An id is `PRODUCER-NUMBER`.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.testing.queue import sample_error


async def produce(queue: EmbeddedErrorQueue, session: str, project: str, producer: str, count: int) -> None:
    for number in range(count) if count else itertools.count():
        item = sample_error(session, project, id=f"{producer}-{number}")
        await queue.put([item])
        print(item.record.id, flush=True)


async def main(path: str, session: str, project: str, producers: str, count: str) -> None:
    queue = EmbeddedErrorQueue(Path(path))
    # The process id keeps the ids of several such children apart.
    names = [f"{sys.argv[6]}{letter}" for letter in range(int(producers))]
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(produce(queue, session, project, name, int(count)))
    await queue.aclose()


asyncio.run(main(*sys.argv[1:6]))
