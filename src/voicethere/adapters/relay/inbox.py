"""A bounded queue of received messages, for one reader, that can be closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")

INBOX_MESSAGES = 1024


class Inbox(Generic[T]):
    """Who puts waits for room: a reader that is slow slows its connection down, and loses nothing."""

    def __init__(self, most: int = INBOX_MESSAGES) -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue(most)
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    async def put(self, item: T) -> None:
        """Return once the item has a place."""
        await self._queue.put(item)

    def close(self) -> None:
        """End `items` once it has given out what is here."""
        self._closed.set()

    async def items(self) -> AsyncIterator[T]:
        """What was put, in order, until `close`."""
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            while True:
                if self._queue.empty():
                    getting = asyncio.ensure_future(self._queue.get())
                    try:
                        await asyncio.wait({getting, closing}, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        # Both may be done: what was got must not be lost to the close.
                        if not getting.done():
                            getting.cancel()
                    if not getting.done():
                        return
                    yield getting.result()
                else:
                    yield self._queue.get_nowait()
        finally:
            closing.cancel()
