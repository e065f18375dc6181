"""A bounded queue of received messages, for one reader, that can be closed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")

INBOX_MESSAGES = 1024
INBOX_BYTES = 16 * 1024 * 1024


class Inbox(Generic[T]):
    """Who puts waits for room: a reader that is slow slows its connections down, and loses nothing."""

    def __init__(self, *, most_messages: int = INBOX_MESSAGES, most_bytes: int = INBOX_BYTES) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._arrived = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def closed(self) -> bool:
        return self._closed

    async def put(self, item: T, size: int = 0) -> None:
        """Return once the item, of `size` bytes, has a place. What comes after `close` is dropped."""
        while not self._has_room.is_set():
            await self._has_room.wait()
        if self._closed:
            return
        self._items.append((item, size))
        self._bytes += size
        if len(self._items) >= self._most_messages or self._bytes >= self._most_bytes:
            self._has_room.clear()
        self._arrived.set()

    def close(self) -> None:
        """End `items` once it has given out what is here; nobody waits for room any more."""
        self._closed = True
        self._arrived.set()
        self._has_room.set()

    async def items(self) -> AsyncIterator[T]:
        """What was put, in order, until `close`."""
        while True:
            while self._items:
                item, size = self._items.popleft()
                self._bytes -= size
                if len(self._items) < self._most_messages and self._bytes < self._most_bytes:
                    self._has_room.set()
                yield item
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()
