"""What the runner, the zygote and a child that is being set up say to each other.

Between runner and zygote: one message per packet of a SOCK_SEQPACKET pair, descriptors beside it. On a
child's channel, before the agent's own frames: one `ChildOrder` down, one `ChildAnswer` up. All of it is
written before any code of an agent runs, so it is trusted.
"""

from __future__ import annotations

import socket
import struct

import msgspec

from voicethere.adapters.sandbox.confinement import WallState
from voicethere.adapters.sandbox.limits import Limits

MAX_PACKET_BYTES = 64 * 1024
FRAME_LENGTH = struct.Struct(">I")


class Fork(msgspec.Struct, frozen=True, tag="fork"):
    """Runner → zygote, with the child's ends of: channel, standard output, standard error."""

    token: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Zygote → runner, first: everything is imported. `readable` is what each child may read."""

    walls: list[WallState]
    readable: list[str]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Zygote → runner instead of `Ready`: it cannot work, and ends."""

    problem: str


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """Zygote → runner, with a pidfd of the child."""

    token: int
    pid: int


class ForkFailed(msgspec.Struct, frozen=True, tag="fork_failed"):
    token: int
    problem: str


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """Zygote → runner: the child has ended and is reaped. One of the two is set."""

    token: int
    exit_status: int | None = None
    signal: int | None = None


FromZygote = Ready | Failed | Forked | ForkFailed | Exited


class ChildOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a forked child is to become."""

    entry_point: str
    environment: dict[str, str]
    read_only: list[str]
    scratch: str
    limits: Limits


class ChildAnswer(msgspec.Struct, frozen=True):
    """`problem` is None once the child is confined."""

    problem: str | None = None


def frame(payload: bytes) -> bytes:
    """A payload with its length in front (big-endian, 32 bits)."""
    return FRAME_LENGTH.pack(len(payload)) + payload


def _receive_exactly(channel: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = channel.recv(count - len(data))
        if not part:
            raise EOFError("the runner closed the channel")
        data += part
    return bytes(data)


def receive_frame(channel: socket.socket) -> bytes:
    """One frame's payload from a blocking socket.

    Raises:
        EOFError: the other end is closed.
    """
    (length,) = FRAME_LENGTH.unpack(_receive_exactly(channel, FRAME_LENGTH.size))
    return _receive_exactly(channel, length)
