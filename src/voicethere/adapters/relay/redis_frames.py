"""What travels on the relay's Redis channels: a message of `wire.relay`, and who says it when.

Knows channels and frames. An *instance* is one life of a runner's or service's end: a runner that was
started again is another one. Numbers count up within an instance, so that whoever listens sees what is old
and what is missing.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Instance = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
Number = Annotated[int, msgspec.Meta(ge=0)]


class Channels(msgspec.Struct, frozen=True):
    """The names of the channels under one prefix. Pub/sub has no databases: only the prefix separates."""

    prefix: str

    @property
    def services(self) -> str:
        """Runners → all session services."""
        return f"{self.prefix}:services"

    @property
    def notices(self) -> str:
        """Session services → all session services."""
        return f"{self.prefix}:notices"

    @property
    def runners(self) -> str:
        """Session services → all runners."""
        return f"{self.prefix}:runners"

    def runner(self, runner_id: str, instance: str) -> str:
        """Session services → one life of one runner, so that a runner started twice does not hear double."""
        return f"{self.prefix}:runner:{runner_id}:{instance}"


class FromRunner(msgspec.Struct, frozen=True, array_like=True, tag="message"):
    """`body` is a `wire.relay.ToService`; `born` is when the instance began, in µs of Redis' clock."""

    runner_id: Name
    born: Number
    instance: Instance
    number: Number
    body: bytes


class Goodbye(msgspec.Struct, frozen=True, array_like=True, tag="goodbye"):
    """The last frame of a runner's instance that closes its link."""

    runner_id: Name
    born: Number
    instance: Instance
    number: Number


class FromService(msgspec.Struct, frozen=True, array_like=True, tag="order"):
    """`body` is a `wire.relay.ToRunner`."""

    service: Name
    instance: Instance
    number: Number
    body: bytes


class HelloWanted(msgspec.Struct, frozen=True, array_like=True, tag="hello?"):
    """The roll call, to all runners or to one."""

    service: Name


class Replaced(msgspec.Struct, frozen=True, array_like=True, tag="replaced"):
    """To an instance of a runner: a newer one has taken its place, nobody listens to it."""

    service: Name


class Notice(msgspec.Struct, frozen=True, array_like=True, tag="notice"):
    """`body` is a `wire.relay.ServiceNotice`."""

    service: Name
    body: bytes


ToServices = FromRunner | Goodbye
ToOneRunner = FromService | HelloWanted | Replaced

_encoder = msgspec.msgpack.Encoder()
_to_services: msgspec.msgpack.Decoder[ToServices] = msgspec.msgpack.Decoder(ToServices)
_to_runner: msgspec.msgpack.Decoder[ToOneRunner] = msgspec.msgpack.Decoder(ToOneRunner)
_notice: msgspec.msgpack.Decoder[Notice] = msgspec.msgpack.Decoder(Notice)


def encode_frame(frame: ToServices | ToOneRunner | Notice) -> bytes:
    """One frame as msgpack."""
    return _encoder.encode(frame)


def decode_to_services(data: bytes) -> ToServices:
    """Raises msgspec.DecodeError where it is none."""
    return _to_services.decode(data)


def decode_to_one_runner(data: bytes) -> ToOneRunner:
    """Raises msgspec.DecodeError where it is none."""
    return _to_runner.decode(data)


def decode_notice_frame(data: bytes) -> Notice:
    """Raises msgspec.DecodeError where it is none."""
    return _notice.decode(data)
