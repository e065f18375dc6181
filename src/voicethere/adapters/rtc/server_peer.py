"""The runner's peer: it offers, with both channels and, where there is audio, one m-line for it.

A new offer for the same client (it joined again, or its transport was lost) is a new `ServerPeer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiortc import RTCRtpSender, RTCSessionDescription

from voicethere.adapters.rtc import descriptions
from voicethere.adapters.rtc.descriptions import BadDescription
from voicethere.adapters.rtc.events import PeerEvent
from voicethere.adapters.rtc.liveness import DEFAULT_PATIENCE, Patience
from voicethere.adapters.rtc.outbound import IDLE_INTERVAL_SECONDS
from voicethere.adapters.rtc.peer import Peer, PeerSetupError
from voicethere.wire.control_channel import CONTROL_LABEL, SYNC_LABEL
from voicethere.wire.session_api import IceServer

INBOUND_SAMPLE_RATE = 16_000
"""Hz of the PCM in `AudioReceived`."""
DEFAULT_CONNECT_TIMEOUT = 20.0


class ServerPeer(Peer):
    """Offers to one client.

    Args:
        audio: whether the session's mode has audio; then `speech` is the track to play on.
        ice_servers: STUN and TURN servers; empty for none.
        on_event: called on the event loop with every `PeerEvent`.
        connect_timeout: seconds from the offer until `ConnectFailed`.
        host_addresses: addresses to offer; None chooses a few of the machine's.
        patience: how long the other side may be silent until it counts as vanished.

    Raises:
        PeerSetupError: an ICE server's URL is not one.
        ValueError: a host address is not one.

    Example:
        >>> peer = ServerPeer(audio=True, ice_servers=[], on_event=events.put_nowait, connect_timeout=20)
        >>> send_offer(await peer.offer())
        >>> await peer.answer(received_sdp)
    """

    def __init__(
        self,
        *,
        audio: bool,
        ice_servers: Sequence[IceServer] = (),
        on_event: Callable[[PeerEvent], None],
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        host_addresses: Sequence[str] | None = None,
        patience: Patience = DEFAULT_PATIENCE,
    ) -> None:
        super().__init__(
            audio=audio,
            ice_servers=ice_servers,
            on_event=on_event,
            connect_timeout=connect_timeout,
            inbound_sample_rate=INBOUND_SAMPLE_RATE,
            host_addresses=host_addresses,
            patience=patience,
            idle_interval=IDLE_INTERVAL_SECONDS,
        )
        if self.speech is not None:
            transceiver = self._connection.addTransceiver(self.speech, direction="sendrecv")
            # The track's packets are Opus: no other codec may be chosen.
            codecs = RTCRtpSender.getCapabilities("audio").codecs
            transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType == "audio/opus"])
        self._adopt(self._connection.createDataChannel(CONTROL_LABEL))
        self._adopt(self._connection.createDataChannel(SYNC_LABEL, ordered=False))
        self._connection.on("datachannel", self._adopt)
        self._offer_our_addresses()
        self._watch_decoding()

    async def offer(self) -> str:
        """Gather candidates and return the offer's SDP, candidates included. Starts the connect timeout.

        Raises:
            PeerSetupError: no description could be made.
        """
        self._start_connect_timer()
        try:
            await self._connection.setLocalDescription(await self._connection.createOffer())
        except Exception as error:
            raise PeerSetupError(f"no offer could be made: {error}") from error
        return self._connection.localDescription.sdp

    async def answer(self, sdp: str) -> None:
        """Apply the client's answer, then the candidates that came before it.

        Raises:
            BadDescription: it does not answer our offer.
        """
        prepared = descriptions.prepare(sdp)
        try:
            await self._connection.setRemoteDescription(
                RTCSessionDescription(sdp=prepared.sdp, type="answer")
            )
        except Exception as error:
            # aiortc parses by hand: whatever it trips over is the sender's fault.
            raise BadDescription(f"not an answer to our offer: {type(error).__name__}: {error}") from error
        await self._use_held_candidates(prepared.candidate_lines)
