"""The error queue as a producer uses it: counted, with a spool in front, and with storms sampled."""

from __future__ import annotations

from pathlib import Path

from voicethere.adapters.queue import SampledErrorQueue, SpooledErrorQueue
from voicethere.adapters.telemetry.observed_queue import ObservedErrorQueue
from voicethere.core.clock import SystemClock
from voicethere.core.ports import ErrorQueuePort


class Producer:
    """`queue` is what a role puts into; the rest is for looking at it.

    Example:
        >>> producer = engines.producer(layout.spool)
        >>> await producer.open()
        >>> await producer.queue.put([ErrorItem(record=record)])
    """

    def __init__(self, engine: ObservedErrorQueue, spool: Path) -> None:
        """`engine` is owned from now on."""
        self.engine = engine
        self.spool = SpooledErrorQueue(engine, spool)
        self.queue: ErrorQueuePort = SampledErrorQueue(self.spool, SystemClock())

    async def open(self) -> None:
        """Take over what dead processes left in the spool. Never raises."""
        await self.spool.open()

    async def aclose(self) -> None:
        """Close all of it; what is spooled stays."""
        await self.queue.aclose()
