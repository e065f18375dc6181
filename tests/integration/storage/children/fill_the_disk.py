"""Writes until no file may grow any more, then says what was accepted; then makes room and goes on.

Arguments: `queue`, `spool` or `store`, a directory, how many bytes a file may have. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from voicethere.adapters.queue import EmbeddedErrorQueue, SpooledErrorQueue
from voicethere.adapters.store import Store, StoreUnavailable
from voicethere.core.ports import QueueUnavailable
from voicethere.testing.queue import sample_error


def may_grow_to(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def fill_spool(directory: Path, size: int) -> dict[str, object]:
    queue = SpooledErrorQueue(
        EmbeddedErrorQueue(directory / "queue.db"), directory / "spool", longest_pause_seconds=0.05
    )
    accepted: list[str] = []
    spooled: list[str] = []

    async def put(number: int) -> None:
        item = sample_error(id=f"{number}", stack="x" * 5000)
        await queue.put([item])
        accepted.append(item.record.id)
        if queue.spooled:
            spooled.append(item.record.id)

    await put(0)
    may_grow_to(size)
    number = 1
    reason = ""
    while not reason:
        try:
            await put(number)
            number += 1
        except QueueUnavailable as error:
            reason = str(error)
    may_grow_to(resource.RLIM_INFINITY)
    await put(number)
    async with asyncio.timeout(30):
        while queue.spooled:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)
    await queue.aclose()
    return {"accepted": accepted, "spooled": spooled, "reason": reason}


async def fill_queue(directory: Path, size: int) -> dict[str, object]:
    queue = EmbeddedErrorQueue(directory / "queue.db")
    accepted: list[str] = []
    refused: list[str] = []
    reason = ""

    async def put(number: int) -> None:
        nonlocal reason
        items = [sample_error(id=f"{number}-{part}", stack="x" * 5000) for part in range(3)]
        ids = [item.record.id for item in items]
        try:
            await queue.put(items)
        except QueueUnavailable as error:
            refused.extend(ids)
            reason = str(error)
        else:
            accepted.extend(ids)

    await put(0)
    may_grow_to(size)
    number = 1
    while not refused:
        await asyncio.gather(*(put(number + offset) for offset in range(5)))
        number += 5
    may_grow_to(resource.RLIM_INFINITY)
    await put(number)
    await queue.aclose()
    return {"accepted": accepted, "refused": refused, "reason": reason, "last": f"{number}-2"}


async def fill_store(directory: Path, size: int) -> dict[str, object]:
    store = await Store.open(f"sqlite:///{directory}/voicethere.db")
    org = await store.ensure_default_org()
    project = await store.create_project(org_id=org, name="P", slug="p")
    await store.create_session(
        session_id="s", project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
    )
    may_grow_to(size)
    accepted: list[str] = []
    reason = ""
    number = 0
    while not reason:
        items = [sample_error("s", project.id, id=f"{number}-{part}", stack="x" * 5000) for part in range(20)]
        try:
            await store.commit_batch(items, [])
            accepted += [item.record.id for item in items]
        except StoreUnavailable as error:
            reason = str(error)
            refused = items
        number += 1
    may_grow_to(resource.RLIM_INFINITY)
    again = await store.commit_batch(refused, [])
    rows: list[str] = []
    cursor = None
    while True:
        page = await store.project_errors(project.id, limit=100, cursor=cursor)
        rows += [row.id for row in page.errors]
        cursor = page.next_cursor
        if cursor is None:
            break
    await store.aclose()
    return {
        "accepted": accepted,
        "refused": [item.record.id for item in refused],
        "reason": reason,
        "inserted_later": again.inserted,
        "rows": rows,
    }


fill = {"queue": fill_queue, "spool": fill_spool, "store": fill_store}[sys.argv[1]]
print(json.dumps(asyncio.run(fill(Path(sys.argv[2]), int(sys.argv[3])))))
