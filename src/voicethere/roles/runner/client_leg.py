"""How a session's host reaches its client, whichever way that is.

`ClientConnections` is WebRTC, `ChatLeg` a conversation over the relay. What the host says becomes a message
on voice-control there, and an output of the conversation here.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from voicethere.adapters.rtc.outbound import SpeechTrack
from voicethere.errors import SessionErrorEnvelope
from voicethere.wire.control_channel import EndReason, SessionClose
from voicethere.wire.tagged import encode_text


class ClientLeg(Protocol):
    """What a host does with its client. Nothing here waits but `flush` and `aclose`."""

    @property
    def track(self) -> SpeechTrack | None:
        """Where speech is played; None where there is no audio now."""

    @property
    def max_message_size(self) -> int | None:
        """Bytes that the client takes in one message; None where that is not known."""

    def joined(self, peer_id: str) -> None:
        """A peer joined the session's room."""

    def left(self, peer_id: str) -> None:
        """A peer's signaling socket is gone."""

    def signalled(self, peer_id: str, text: str) -> None:
        """A signaling message from a peer of the room."""

    def tell(self, error_id: str, envelope: SessionErrorEnvelope) -> None:
        """An error of the session; `error_id` is its row's."""

    def send_close(self, close: SessionClose) -> None:
        """The session is about to end."""

    def closing(self, end_reason: EndReason) -> None:
        """Nothing follows any more: `flush` is next."""

    def pass_on(self, payload: str) -> None:
        """The agent's `send_to_client`: JSON text."""

    def notify(self, message: msgspec.Struct) -> None:
        """A message of voice-control that is none of these."""

    def send_binary(self, data: bytes, channel: str) -> bool:
        """The agent's bytes; False where they came to nothing."""

    async def flush(self, seconds: float) -> bool:
        """Wait until the client has everything; False after `seconds`."""

    async def aclose(self) -> None:
        """Let go of the client."""


class OverControlChannel(Protocol):
    """A base for legs on which everything is a message on voice-control."""

    def send_control(self, text: str, *, urgent: bool = False) -> bool:
        """Send on voice-control; False where that cannot be."""

    def tell(self, error_id: str, envelope: SessionErrorEnvelope) -> None:
        """The envelope, before everything else that waits."""
        self.send_control(encode_text(envelope), urgent=True)

    def send_close(self, close: SessionClose) -> None:
        """As it is, before everything else that waits."""
        self.send_control(encode_text(close), urgent=True)

    def closing(self, end_reason: EndReason) -> None:
        """Whoever has to know was told by what came before."""

    def pass_on(self, payload: str) -> None:
        """As it is."""
        self.send_control(payload)

    def notify(self, message: msgspec.Struct) -> None:
        """As it is."""
        self.send_control(encode_text(message))
