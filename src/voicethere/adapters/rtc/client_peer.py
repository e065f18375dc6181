"""The client's peer: it answers the runner's offer and takes the channels by their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiortc import RTCDataChannel, RTCSessionDescription

from voicethere.adapters.rtc import descriptions
from voicethere.adapters.rtc.descriptions import BadDescription
from voicethere.adapters.rtc.events import PeerEvent
from voicethere.adapters.rtc.liveness import DEFAULT_PATIENCE, Patience
from voicethere.adapters.rtc.opus import FRAME_SECONDS, SAMPLE_RATE
from voicethere.adapters.rtc.peer import Peer
from voicethere.wire.session_api import IceServer

INBOUND_SAMPLE_RATE = SAMPLE_RATE
"""Hz of the PCM in `AudioReceived`."""
DEFAULT_CONNECT_TIMEOUT = 20.0


class ClientPeer(Peer):
    """Answers one offer.

    Args:
        audio: send audio (silence until something plays on `speech`); False answers `recvonly`.
        ice_servers, on_event, host_addresses, patience: as for `ServerPeer`.
        connect_timeout: seconds from the answer until `ConnectFailed`.

    Example:
        >>> peer = ClientPeer(audio=True, on_event=handle)
        >>> send_answer(await peer.answer_to(offer_sdp))
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
            # Continuous, as a microphone is: who waits for the end of speech hears the silence after it.
            idle_interval=FRAME_SECONDS,
        )
        self._connection.on("datachannel", self._adopt_open)

    async def answer_to(self, sdp: str) -> str:
        """Apply an offer and return the answer's SDP, candidates included. Starts the connect timeout.

        Raises:
            BadDescription: the offer cannot be answered.
        """
        prepared = descriptions.prepare(sdp)
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp=prepared.sdp, type="offer"))
            audio = next((each for each in self._transceivers() if each.kind == "audio"), None)
            if audio is not None and self.speech is not None:
                audio.sender.replaceTrack(self.speech)
                audio.direction = "sendrecv"
            self._offer_our_addresses()
            self._watch_decoding()
            self._start_connect_timer()
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as error:
            raise BadDescription(f"the offer cannot be answered: {type(error).__name__}: {error}") from error
        await self._use_held_candidates(prepared.candidate_lines)
        return self._connection.localDescription.sdp

    def _adopt_open(self, channel: RTCDataChannel) -> None:
        # It is open already when aiortc hands it out: its "open" event is past.
        self._adopt(channel)
        if channel is self._control:
            self._on_control_open()
        elif channel is self._sync:
            self._on_sync_open()
