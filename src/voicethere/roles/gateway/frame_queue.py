"""What waits to be sent to one socket of a conversation: bounded, in order, with the close at its end.

A reader that falls behind loses what waits for it, never its socket, and is told the conversation's latest
entities once it has caught up. Knows frames as text with a number; no sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec


class Close(msgspec.Struct, frozen=True):
    """Close the socket with this code (RFC 6455) and reason."""

    code: int
    reason: str


class CatchUp(msgspec.Struct, frozen=True):
    """Tell the socket the conversation's latest entities: `caught_up` with what they are."""


class FrameQueue:
    """Filled by the conversation, emptied by the one task that writes to the socket.

    It begins with a `CatchUp`: what a client that opens a socket must hear first.
    """

    def __init__(self, *, most_frames: int, most_bytes: int) -> None:
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._frames: deque[tuple[int, str]] = deque()
        self._bytes = 0
        self._behind = True
        self._catching_up = False
        self._known = 0
        self._close: Close | None = None
        self._changed = asyncio.Event()
        self.dropped = 0
        """How many frames were not kept because the socket reads slowly."""

    @property
    def closing(self) -> bool:
        """Whether a close is on its way; nothing more is taken then."""
        return self._close is not None

    def put(self, first_seq: int, frames: Sequence[str]) -> None:
        """Frames numbered from `first_seq` on. Those of a socket that is behind are dropped: it will be told
        the latest entities in their place."""
        if self._close is not None:
            return
        if self._behind and not self._catching_up:
            self.dropped += len(frames)
            return
        for seq, frame in enumerate(frames, first_seq):
            if seq > self._known:
                self._frames.append((seq, frame))
                self._bytes += len(frame)
        if len(self._frames) > self._most_frames or self._bytes > self._most_bytes:
            self.fall_behind()
        self._changed.set()

    def fall_behind(self) -> None:
        """Drop what waits; the latest entities follow in its place."""
        self.dropped += len(self._frames)
        self._frames.clear()
        self._bytes = 0
        self._behind, self._catching_up = True, False
        self._changed.set()

    def caught_up(self, seq: int) -> None:
        """The socket was told all that the conversation was at the frame `seq`: later ones follow."""
        if not self._catching_up:
            return  # it fell behind again meanwhile
        self._behind = self._catching_up = False
        self._known = seq
        while self._frames and self._frames[0][0] <= seq:
            self._bytes -= len(self._frames.popleft()[1])

    def close(self, code: int, reason: str) -> None:
        """Close it now: what still waits is told again to whoever comes back. The first close wins."""
        if self._close is None:
            self._close = Close(code, reason)
            self._frames.clear()
            self._bytes = 0
            self._changed.set()

    async def next(self) -> str | Close | CatchUp:
        """The next thing to do; after a `Close` there is none. Frames that come after a `CatchUp` was given
        out wait for `caught_up`."""
        while True:
            if self._close is not None:
                return self._close
            if self._behind:
                self._catching_up = True
                return CatchUp()
            if self._frames:
                _, frame = self._frames.popleft()
                self._bytes -= len(frame)
                return frame
            self._changed.clear()
            await self._changed.wait()
