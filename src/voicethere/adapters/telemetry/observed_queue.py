"""A queue that is counted: how much was put, how often that failed. Plain numbers, no metrics library."""

from __future__ import annotations

from collections.abc import Sequence

from voicethere.core.ports import Delivery, ErrorQueuePort, QueueUnavailable
from voicethere.wire.queue import QueueItem


class ObservedErrorQueue:
    """Implements `ErrorQueuePort` in front of `queue`, which it owns."""

    def __init__(self, queue: ErrorQueuePort) -> None:
        self._queue = queue
        self.items_put = 0
        self.put_failures = 0
        """Puts that the queue refused; with a spool in front, their items are spooled."""

    async def put(self, items: Sequence[QueueItem]) -> None:
        """See the port."""
        try:
            await self._queue.put(items)
        except QueueUnavailable:
            self.put_failures += 1
            raise
        self.items_put += len(items)

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """See the port."""
        return await self._queue.receive(limit=limit, wait_seconds=wait_seconds)

    async def acknowledge(self, positions: Sequence[str]) -> None:
        """See the port."""
        await self._queue.acknowledge(positions)

    async def depth(self) -> int:
        """See the port."""
        return await self._queue.depth()

    async def oldest_seconds(self) -> float | None:
        """See the port."""
        return await self._queue.oldest_seconds()

    async def aclose(self) -> None:
        """See the port."""
        await self._queue.aclose()
