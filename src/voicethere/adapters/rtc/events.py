"""What a peer tells its owner. Events arrive on the event loop, in order, and none after `close()`."""

from __future__ import annotations

import enum

import msgspec


class ConnectionState(enum.StrEnum):
    """States of a peer connection; aiortc has no `disconnected`."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    FAILED = "failed"
    CLOSED = "closed"


class ConnectionStateChanged(msgspec.Struct, frozen=True):
    """The peer connection's state. `closed` here means that the other side, or the network, ended it."""

    state: ConnectionState


class PeerVanished(msgspec.Struct, frozen=True):
    """Nothing comes from the other side any more, and it does not answer. Said once; the owner closes."""


class ControlOpened(msgspec.Struct, frozen=True):
    """`voice-control` is open."""


class SyncOpened(msgspec.Struct, frozen=True):
    """`voicethere-sync` is open."""


class ControlClosed(msgspec.Struct, frozen=True):
    """`voice-control` was closed by the other side, or with its connection."""


class ControlReceived(msgspec.Struct, frozen=True):
    """A text or binary message on `voice-control`."""

    data: str | bytes


class SyncReceived(msgspec.Struct, frozen=True):
    """A message on `voicethere-sync` (text comes as its UTF-8 bytes)."""

    data: bytes


class AudioReceived(msgspec.Struct, frozen=True):
    """s16 mono PCM at the peer's inbound rate (16 kHz on the runner), in order, gaps filled with silence."""

    pcm: bytes


class AudioProblem(msgspec.Struct, frozen=True):
    """Inbound audio that could not be used; at most one event a second, `count` since the beginning."""

    message: str
    count: int


class ConnectFailed(msgspec.Struct, frozen=True):
    """The peer did not get connected: in time, or at all. Said once; the owner closes the peer."""

    reason: str


PeerEvent = (
    ConnectionStateChanged
    | PeerVanished
    | ControlOpened
    | SyncOpened
    | ControlClosed
    | ControlReceived
    | SyncReceived
    | AudioReceived
    | AudioProblem
    | ConnectFailed
)
