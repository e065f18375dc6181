"""The loop that a speech process runs: one request in, one reply out, until its runner is gone.

Knows frames and signals. What a request means is the handler's affair; starting the process is `worker`'s.
Blocking throughout: the process does one thing at a time.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable

from voicethere.adapters.speech.worker_protocol import (
    LENGTH,
    MAX_FRAME_BYTES,
    FailedReply,
    ReadyReply,
    Reply,
    Request,
    decode_request,
    encode_frame,
)

Handler = Callable[[Request], Reply]
_PR_SET_PDEATHSIG = 1


def serve(start: Callable[[], tuple[ReadyReply, Handler]]) -> None:
    """Call `start`, report its reply, then answer requests from file descriptor 0 until it is closed.

    An exception of `start` is reported and ends the process with status 1; one of the handler is reported
    and the next request is awaited.
    """
    _end_with_runner(int(sys.argv[1]))
    with socket.socket(fileno=0) as channel:
        try:
            ready, handle = start()
        except Exception as error:
            _send(channel, FailedReply(message=_words(error)))
            sys.exit(1)
        _send(channel, ready)
        while (payload := _receive(channel)) is not None:
            try:
                reply = handle(decode_request(payload))
                frame = encode_frame(reply)
            except Exception as error:
                traceback.print_exc()
                frame = encode_frame(FailedReply(message=_words(error)))
            channel.sendall(frame)


def _end_with_runner(runner_pid: int) -> None:
    """Die with the runner even in the middle of a request; Ctrl-C is for the runner to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The runner may have died between the fork and the line above.
    if os.getppid() != runner_pid:
        sys.exit(0)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def _send(channel: socket.socket, reply: Reply) -> None:
    channel.sendall(encode_frame(reply))


def _receive(channel: socket.socket) -> bytes | None:
    head = _exactly(channel, LENGTH.size)
    if head is None:
        return None
    (length,) = LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        sys.exit(2)
    return _exactly(channel, length)


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    """`count` bytes, or None where the other end is gone."""
    data = bytearray()
    while len(data) < count:
        try:
            part = channel.recv(min(count - len(data), 1 << 20))
        except ConnectionError:
            return None
        if not part:
            return None
        data += part
    return bytes(data)
