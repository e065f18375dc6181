"""What session services tell each other, on its way to one reader.

Unlike an inbox, it never makes anybody wait: a service that does not read its notices must not hold up what
runners say. Notices only hasten what every service finds out by itself; so a lost one costs time, no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import structlog

from voicethere.adapters.relay.inbox import INBOX_BYTES, INBOX_MESSAGES
from voicethere.wire.relay import ServiceNotice

_log = structlog.get_logger(__name__)


class NoticeBox:
    """A bounded queue of notices, for one reader, that can be closed; what finds it full is dropped."""

    def __init__(self, *, most_notices: int = INBOX_MESSAGES, most_bytes: int = INBOX_BYTES) -> None:
        self._most_notices = most_notices
        self._most_bytes = most_bytes
        self._notices: deque[tuple[ServiceNotice, int]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._closed = False
        self._arrived = asyncio.Event()

    def put(self, notice: ServiceNotice, size: int) -> None:
        """Keep a notice of `size` bytes for the reader, where there is room."""
        if self._closed:
            return
        if len(self._notices) >= self._most_notices or self._bytes + size > self._most_bytes:
            self._dropped += 1
            if self._dropped == 1:  # once, until the reader has caught up
                _log.warning("relay_notices_overflow", waiting=len(self._notices))
            return
        self._notices.append((notice, size))
        self._bytes += size
        self._arrived.set()

    def close(self) -> None:
        """End `items` once it has given out what is here."""
        self._closed = True
        self._arrived.set()

    async def items(self) -> AsyncIterator[ServiceNotice]:
        """What was put, in order, until `close`."""
        while True:
            while self._notices:
                notice, size = self._notices.popleft()
                self._bytes -= size
                if self._dropped and not self._notices:
                    _log.warning("relay_notices_dropped", count=self._dropped)
                    self._dropped = 0
                yield notice
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()
