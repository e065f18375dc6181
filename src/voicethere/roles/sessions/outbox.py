"""What waits to be sent to one signaling socket: bounded, in order, with the close at its end."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

POLICY_VIOLATION = 1008
NORMAL_CLOSURE = 1000


class Close(msgspec.Struct, frozen=True):
    """Close the socket with this code (RFC 6455) and reason."""

    code: int
    reason: str


class SocketOutbox:
    """Filled by anyone, emptied by the one task that writes to the socket."""

    def __init__(self, *, most_messages: int, most_bytes: int) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._texts: deque[str] = deque()
        self._bytes = 0
        self._close: Close | None = None
        self._changed = asyncio.Event()

    @property
    def closing(self) -> bool:
        """Whether a close is on its way; nothing more is taken then."""
        return self._close is not None

    def send(self, text: str) -> bool:
        """Whether there was a place. A socket that does not read gives its place up: it is closed."""
        if self._close is not None:
            return False
        if len(self._texts) >= self._most_messages or self._bytes + len(text) > self._most_bytes:
            self._texts.clear()
            self.close(POLICY_VIOLATION, "reads too slowly")
            return False
        self._texts.append(text)
        self._bytes += len(text)
        self._changed.set()
        return True

    def close(self, code: int, reason: str) -> None:
        """Close once everything before has been sent. The first close wins."""
        if self._close is None:
            self._close = Close(code, reason)
            self._changed.set()

    async def next(self) -> str | Close:
        """The next thing to do; after a `Close` there is none."""
        while True:
            if self._texts:
                text = self._texts.popleft()
                self._bytes -= len(text)
                return text
            if self._close is not None:
                return self._close
            self._changed.clear()
            await self._changed.wait()
