"""Entry points that the contract tests start; plain enough for a fake to call in a thread."""

from __future__ import annotations

import os
import socket
import struct
import sys


def _exactly(channel: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = channel.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def echo(fd: int) -> None:
    """Sends every frame back; the frame `exit N` ends it with that status, `say X` is written to both
    standard streams, `env X` is answered with that variable."""
    channel = socket.socket(fileno=fd)
    while True:
        try:
            frame = _exactly(channel, struct.unpack(">I", _exactly(channel, 4))[0])
        except EOFError:
            return
        word, _, rest = frame.partition(b" ")
        if word == b"exit":
            sys.exit(int(rest))
        if word == b"say":
            print(rest.decode())
            print(rest.decode(), file=sys.stderr)
        if word == b"env":
            frame = os.environ.get(rest.decode(), "-").encode()
        if word == b"read":
            with open(rest) as file:
                frame = file.read().encode()
        if word == b"oversized":
            channel.sendall(struct.pack(">I", int(rest)))
            continue
        channel.sendall(struct.pack(">I", len(frame)) + frame)
