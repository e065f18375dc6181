"""A worker that is killed between its N-th commit and the acknowledgement of it.

Arguments: the queue's file, the database's URL, N, the batch's size.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.adapters.store import CommittedBatch, Store
from voicethere.roles.sessions.worker import Worker


async def main(path: str, url: str, commits: int, batch: int) -> None:
    left = commits

    def die_after(committed: CommittedBatch) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            print(committed.inserted, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    queue = EmbeddedErrorQueue(Path(path))
    store = await Store.open(url)
    await Worker(queue, store, batch=batch, on_committed=die_after).run()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
