"""What the runner and its speech processes say to each other: length-prefixed msgpack over one socket.

Knows the frames and the messages. Knows neither how a process is started (`worker`) nor what it does with
a request (`synthesizer_process`, `recognizer_process`). Both ends ship together.
"""

from __future__ import annotations

import struct

import msgspec

MAX_FRAME_BYTES = 8 * 1024 * 1024
"""No request and no reply is larger: a minute of 16-kHz PCM is 1.9 MB, a minute of 22-kHz PCM 2.6 MB."""

LENGTH = struct.Struct(">I")


class SayRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="say"):
    """Speak one segment of cleaned text."""

    text: str
    voice: str
    words_per_minute: int


class RecognizeRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="recognize"):
    """Recognize 16-kHz PCM as one of `phrases` (each a list of normalised words); no phrases: dictation."""

    pcm: bytes
    phrases: list[list[str]]


class LookUpRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="look_up"):
    """Ask how the recognizer knows these words."""

    words: list[str]


class ReadyReply(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="ready"):
    """First frame from a process: it works. `sample_rate` is that of the PCM it yields, if it yields any."""

    sample_rate: int = 0


class SayReply(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="said"):
    """PCM at the ready reply's rate. `cut` where the segment was longer than one reply may be."""

    pcm: bytes
    cut: bool = False


class RecognizeReply(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="recognized"):
    """`phrase` is an index into the request's phrases; `words` is set for dictation. Neither: nothing."""

    phrase: int | None = None
    words: str = ""
    confidence: float | None = None


class LookUpReply(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="looked_up"):
    """`guessed` are not in the dictionary but can be pronounced; `unknown` are neither."""

    guessed: list[str]
    unknown: list[str]


class FailedReply(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="failed"):
    """The request (or the start) failed in a way that the process survived."""

    message: str


Request = SayRequest | RecognizeRequest | LookUpRequest
Reply = ReadyReply | SayReply | RecognizeReply | LookUpReply | FailedReply

_encoder = msgspec.msgpack.Encoder()
_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode_frame(message: Request | Reply) -> bytes:
    """A whole frame, its length in front.

    Raises:
        ValueError: larger than `MAX_FRAME_BYTES`.
    """
    payload = _encoder.encode(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"a speech frame of {len(payload)} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return LENGTH.pack(len(payload)) + payload


def decode_request(payload: bytes) -> Request:
    """Raises msgspec.DecodeError where it is none."""
    return _request.decode(payload)


def decode_reply(payload: bytes) -> Reply:
    """Raises msgspec.DecodeError where it is none."""
    return _reply.decode(payload)
