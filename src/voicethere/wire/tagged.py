"""Decoding of messages that are told apart by `type`.

msgspec's own tagged unions refuse an unknown tag, and the contract wants unknown types ignored; and
`omit_defaults` would drop `recoverable: false`. So: read `type` first, then decode what it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class UndecodableMessage(ValueError):
    """The text is not a message of this boundary; the words say what was wrong with it."""


class _TypeOnly(msgspec.Struct, frozen=True):
    type: str


_type_decoder = msgspec.json.Decoder(_TypeOnly)


class TaggedDecoder:
    """Decodes JSON objects whose `type` names one of `messages`.

    Example:
        >>> decoder = TaggedDecoder({"join": Join})
        >>> decoder.decode('{"type": "join", "room": "r", "peerId": "client-1"}')
    """

    def __init__(self, messages: Mapping[str, type[msgspec.Struct]]) -> None:
        self._decoders = {tag: msgspec.json.Decoder(message) for tag, message in messages.items()}

    def tag(self, data: str | bytes) -> str | None:
        """The message's `type` where it is one of ours, whatever the rest of it is; else None."""
        try:
            found = _type_decoder.decode(data).type
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return found if found in self._decoders else None

    def decode(self, data: str | bytes) -> Any | None:
        """The message, or None where its type is unknown (a reader ignores those).

        Raises:
            UndecodableMessage: not JSON, not an object with a `type`, or fields of a wrong shape.
        """
        try:
            tag = _type_decoder.decode(data).type
            decoder = self._decoders.get(tag)
            return None if decoder is None else decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UndecodableMessage(str(error)) from error


def encode_text(message: msgspec.Struct) -> str:
    """A message as JSON text, as data channels and sockets carry it."""
    return msgspec.json.encode(message).decode()
