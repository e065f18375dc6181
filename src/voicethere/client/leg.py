"""A *leg*: one peer connection with the runner, and how far it has come up. A session may need several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from voicethere.adapters.rtc.client_peer import ClientPeer
from voicethere.adapters.rtc.events import (
    AudioReceived,
    ConnectionState,
    ConnectionStateChanged,
    ControlClosed,
    ControlOpened,
    PeerEvent,
    PeerVanished,
    SyncOpened,
)
from voicethere.errors.codes import SessionErrorCode
from voicethere.wire.session_api import IceServer, Mode


class Leg:
    """Passes its peer's events on, after taking note of them.

    Raises:
        PeerSetupError: no peer can be made.
    """

    def __init__(
        self,
        *,
        audio: bool,
        ice_servers: Sequence[IceServer],
        on_event: Callable[[Leg, PeerEvent], None],
        connect_seconds: float,
    ) -> None:
        self._on_event = on_event
        self._up = False
        self._sync_open = False
        self._audio_in = False
        self.control_open = False
        self.over = False
        """Whether nobody listens to it any more."""
        self.peer = ClientPeer(
            audio=audio, ice_servers=ice_servers, on_event=self._take, connect_timeout=connect_seconds
        )

    def carries(self, mode: Mode) -> bool:
        """Whether it is connected as `mode` asks."""
        speech = self.peer.speech
        audio = self._audio_in and (speech is None or speech.sent_packets > 0)
        channels = self.control_open and self._sync_open
        return self._up and (audio or mode is Mode.DATA) and (channels or mode is Mode.VOICE)

    def _take(self, event: PeerEvent) -> None:
        match event:
            case ConnectionStateChanged(state=ConnectionState.CONNECTED):
                self._up = True
            case ControlOpened():
                self.control_open = True
            case SyncOpened():
                self._sync_open = True
            case AudioReceived():
                self._audio_in = True
            case _:
                pass
        self._on_event(self, event)


def loss(event: PeerEvent) -> SessionErrorCode | None:
    """What the event is for an application if it means that the leg is lost; None if it does not."""
    match event:
        case ConnectionStateChanged(state=ConnectionState.FAILED) | PeerVanished():
            return SessionErrorCode.WEBRTC_CONNECTION_FAILED
        case ConnectionStateChanged(state=ConnectionState.CLOSED) | ControlClosed():
            return SessionErrorCode.WEBRTC_CONNECTION_CLOSED
        case _:
            return None
