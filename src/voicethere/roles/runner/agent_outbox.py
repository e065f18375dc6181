"""What waits to be sent to a child: bounded, so that a child that does not read costs the runner nothing."""

from __future__ import annotations

import asyncio
from collections import deque

MAX_FRAMES = 4096
MAX_BYTES = 16 * 1024 * 1024


class Outbox:
    """Frames in order. One task takes, any code of the loop puts."""

    def __init__(self, *, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()

    def put(self, frame: bytes) -> bool:
        """Whether there was room for it."""
        if len(self._frames) >= self._max_frames or self._bytes + len(frame) > self._max_bytes:
            return False
        self._frames.append(frame)
        self._bytes += len(frame)
        self._filled.set()
        return True

    async def take(self) -> bytes:
        """The next frame; waits for one."""
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        return frame
