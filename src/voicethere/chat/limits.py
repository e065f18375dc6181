"""What a chat client puts up with from a server: bytes, frames and seconds."""

from __future__ import annotations

import msgspec

from voicethere.core.chat import checks

_MIB = 1024 * 1024


class ChatLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of memory, for one conversation. What is past one is recorded as an error.

    `frame_bytes`: the largest frame; a larger one ends the socket. `buffered_frames`, `buffered_bytes`:
    frames that wait for the snapshot; past either the socket is not read for as long. `snapshot_bytes`: the
    largest snapshot. `timeline_bytes`: what the timeline may hold, about; past it the socket is closed and
    stays so.

    Raises:
        TypeError: a limit that is not a whole number.
        ValueError: one that is not positive.
    """

    frame_bytes: int = 8 * _MIB
    buffered_frames: int = 4_096
    buffered_bytes: int = 16 * _MIB
    snapshot_bytes: int = 32 * _MIB
    timeline_bytes: int = 128 * _MIB

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if type(value) is not int:
                raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")


class ChatTimings(msgspec.Struct, frozen=True, kw_only=True):
    """How long a chat client waits, in seconds.

    `open_wait`: for the socket, before the snapshot is fetched without it. `open_timeout`: until a socket
    that does not open has failed. `snapshot_timeout`, `prompt_timeout`: for a whole request. `grace`: between
    the last disconnect and the end of the socket. `ping_interval`: between pings, each of which must be
    answered within as long again.

    Raises:
        TypeError: a time that is not a number.
        ValueError: one that is negative, not finite, or 0 (`open_wait` and `grace` may be 0).
    """

    open_wait: float = 1.5
    open_timeout: float = 10.0
    snapshot_timeout: float = 15.0
    prompt_timeout: float = 30.0
    grace: float = 0.75
    ping_interval: float = 20.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = checks.number(getattr(self, name), name)
            if value < 0 or (value == 0 and name not in ("open_wait", "grace")):
                raise ValueError(f"{name} must be more than 0 seconds, not {value}")
