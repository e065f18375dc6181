"""The child's end of the IPC stream.

Sending is blocking and under a lock, from whatever thread calls: what an agent sends is on its way, in the
order of the calls, before the function returns, even if the process dies on the next line. Receiving never
blocks the event loop. Where the runner is gone there is nobody to work for: the process exits at once.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

from voicethere.agent.leaving import leave
from voicethere.wire.ipc import FrameSplitter, FromChild, ToChild, add_length, decode_to_child, encode

_READ_BYTES = 256 * 1024


class Channel:
    """Frames over the stream socket `fd`, which the channel takes over."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._splitter = FrameSplitter()
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """For the event loop to watch."""
        return self._socket.fileno()

    def send(self, message: FromChild) -> None:
        """Send one message; from any thread."""
        data = add_length(encode(message))
        try:
            with self._sending:
                self._socket.sendall(data)
        except OSError:
            leave(0)

    def receive_now(self) -> Iterator[ToChild]:
        """The messages that are there; to be used up before the next call."""
        return self._receive(socket.MSG_DONTWAIT)

    def receive_first(self) -> ToChild:
        """Wait for the first message. The runner sends no other until it is answered."""
        while True:
            for message in self._receive(0):
                return message

    def _receive(self, flags: int) -> Iterator[ToChild]:
        try:
            data = self._socket.recv(_READ_BYTES, flags)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            leave(0)
        for frame in self._splitter.feed(data):
            yield decode_to_child(frame)
