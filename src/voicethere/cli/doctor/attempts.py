"""What the doctor's confined child tries, none of which it may do. Runs in the sandbox; imports little.

Each attempt aims at what the doctor made for it, so that nothing is harmed where a wall is missing.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable

FORBIDDEN_FILE = "VOICETHERE_DOCTOR_FILE"
"""The environment variable that names the file which is not the child's to read."""


def _read() -> None:
    with open(os.environ[FORBIDDEN_FILE]) as file:
        file.read()


def _write() -> None:
    with open(os.environ[FORBIDDEN_FILE] + ".written", "w") as file:
        file.write("by the child")


def _connect() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", ("127.0.0.1", 9))


def _start() -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


ATTEMPTS: dict[str, Callable[[], None]] = {
    "reading a file of yours": _read,
    "writing beside it": _write,
    "using the network": _connect,
    "starting a program": _start,
}


def main(channel: int) -> None:
    """Try everything; answer with one frame: attempt → what stopped it, null where nothing did."""
    stopped: dict[str, str | None] = {}
    for name, attempt in ATTEMPTS.items():
        try:
            attempt()
        except Exception as error:
            stopped[name] = f"{type(error).__name__}: {error}"
        else:
            stopped[name] = None
    answer = json.dumps(stopped).encode()
    with socket.socket(fileno=channel) as talk:
        talk.sendall(struct.pack(">I", len(answer)) + answer)
