"""Frames on a stream: four bytes of length, big-endian, then a msgpack message of `wire.relay`.

A frame without payload, from a service to a runner, calls the roll: the runner says hello again.

Also the bounded outbox that every link writes through: a side that does not read costs its peer a bounded
wait and its link, never more.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""Of one message: an assignment holds a project's whole environment."""

ROLL_CALL = b""
"""The payload of the frame with which a service asks a runner for a fresh hello."""

_LENGTH = struct.Struct(">I")


class FrameTooLarge(ValueError):
    """A message past `MAX_FRAME_BYTES`: refused by the sender, the end of the link for a reader."""


class LinkClosed(Exception):
    """The link is gone, or was given up because its other side does not read."""


def check_size(payload: bytes) -> None:
    """Raises FrameTooLarge where no relay would carry this message."""
    if len(payload) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"a message of {len(payload)} bytes; at most {MAX_FRAME_BYTES} are allowed")


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The payload of the next frame; None at the end of the stream.

    Raises:
        FrameTooLarge: the other side announces more than it may send.
        OSError: the connection broke.
    """
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise FrameTooLarge(f"a frame of {length} bytes; at most {MAX_FRAME_BYTES} are allowed")
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None


class Outbox:
    """Frames on their way into a stream, bounded in number and bytes; one task writes them in order."""

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        *,
        most_frames: int = 1024,
        most_bytes: int = 2 * MAX_FRAME_BYTES,
        patience_seconds: float = 5.0,
    ) -> None:
        self._writer = writer
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._patience_seconds = patience_seconds
        self._frames: list[bytes] = []
        self._bytes = 0
        self._closed = False
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._write(), name="relay outbox")
        self._gone: asyncio.Task[None] | None = None

    async def put(self, payload: bytes) -> None:
        """Return once the frame has a place; waits at most `patience_seconds` for one.

        Raises:
            FrameTooLarge: nothing was sent.
            LinkClosed: nothing of this frame will arrive; the link is gone.
        """
        check_size(payload)
        try:
            async with asyncio.timeout(self._patience_seconds), self._changed:
                await self._changed.wait_for(lambda: self._closed or self._has_place(len(payload)))
                if self._closed:
                    raise LinkClosed("the link is gone")
                self._frames.append(payload)
                self._bytes += len(payload)
                self._changed.notify_all()
        except TimeoutError:
            self.abort()
            raise LinkClosed(
                f"the other side did not read for {self._patience_seconds} s; its link is given up"
            ) from None

    def _has_place(self, size: int) -> bool:
        return len(self._frames) < self._most_frames and self._bytes + size <= self._most_bytes

    def abort(self) -> None:
        """End the connection now; what is still here is lost, and the reader sees the end of the stream."""
        self._closed = True
        self._writer.transport.abort()

    async def aclose(self, *, flush_seconds: float = 0.0) -> None:
        """Close the connection, after what is still here has gone out within `flush_seconds`."""
        if flush_seconds and not self._closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(flush_seconds), self._changed:
                    await self._changed.wait_for(lambda: self._closed or self._bytes == 0)
                self._closed = True
                self._writer.close()
        if self._gone is None:
            # A task of its own: cancelling `wait_closed` would cancel it for whoever else waits.
            self._gone = asyncio.create_task(self._wait_gone(), name="relay connection gone")
        if self._writer.is_closing():
            await asyncio.wait([self._gone], timeout=flush_seconds)
        self.abort()
        self._task.cancel()
        await asyncio.wait([self._task, self._gone])
        async with self._changed:
            self._changed.notify_all()

    async def _wait_gone(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _write(self) -> None:
        try:
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._frames or self._closed)
                    if self._closed:
                        return
                    frames, self._frames = self._frames, []
                for frame in frames:
                    self._writer.write(_LENGTH.pack(len(frame)))
                    self._writer.write(frame)
                    await self._writer.drain()
                    async with self._changed:
                        self._bytes -= len(frame)
                        self._changed.notify_all()
        except OSError:
            pass  # the reader of the same connection sees its end and says so
        finally:
            self._closed = True
