"""What test children share: frames over the channel, without the product's code."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any


class Channel:
    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def receive(self) -> bytes:
        return self._exactly(struct.unpack(">I", self._exactly(4))[0])

    def send(self, payload: bytes) -> None:
        self._socket.sendall(struct.pack(">I", len(payload)) + payload)

    def send_raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive_json(self) -> Any:
        return json.loads(self.receive())

    def send_json(self, value: Any) -> None:
        self.send(json.dumps(value).encode())
