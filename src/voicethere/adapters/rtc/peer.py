"""What the offering and the answering peer have in common: channels, audio, candidates, limits, the end.

Knows one aiortc peer connection from its making to its last socket. It does not know who offers
(`server_peer`, `client_peer`) or what the messages mean.

Memory is bounded against a peer that does not read: what cannot be buffered is refused (`send_*` return
False and count it), `voice-control` keeps a reserve for messages that must get through, and whatever is
not a channel of ours is closed. Candidates are limited to 64.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCDtlsTransport,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSctpTransport,
)
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcicetransport import parse_stun_turn_uri
from msgspec import UNSET

from voicethere.adapters.rtc import candidates, sctp_flush
from voicethere.adapters.rtc.decode_errors import report_decode_errors
from voicethere.adapters.rtc.events import (
    AudioProblem,
    AudioReceived,
    ConnectFailed,
    ConnectionState,
    ConnectionStateChanged,
    ControlClosed,
    ControlOpened,
    ControlReceived,
    PeerEvent,
    PeerVanished,
    SyncOpened,
    SyncReceived,
)
from voicethere.adapters.rtc.host_addresses import checked, choose, machine_addresses, offer_only
from voicethere.adapters.rtc.ice_end import end_ice
from voicethere.adapters.rtc.inbound import pcm_frames
from voicethere.adapters.rtc.liveness import Liveness, Patience
from voicethere.adapters.rtc.outbound import SpeechTrack
from voicethere.adapters.rtc.quiet_logs import quiet_rtc_logs
from voicethere.wire.control_channel import CONTROL_LABEL, SYNC_LABEL
from voicethere.wire.session_api import IceServer
from voicethere.wire.signaling import Candidate

_log = logging.getLogger("voicethere.rtc")

MAX_BUFFERED_BYTES = 1024 * 1024
"""A channel with more than this to send takes no more messages."""
URGENT_RESERVE_BYTES = 1024 * 1024
"""What `voice-control` keeps on top for urgent messages (session_error, session_close)."""
MAX_CANDIDATES = 64
CLOSE_TIMEOUT_SECONDS = 5.0
_PROBLEM_INTERVAL_SECONDS = 1.0


class PeerSetupError(Exception):
    """The peer cannot be made or described as asked; the words say why."""


class MessageTooLarge(ValueError):
    """The message is larger than the other side takes."""


class PeerCounts(msgspec.Struct):
    """What was ignored, refused or dropped so far."""

    malformed_candidates: int = 0
    mdns_candidates: int = 0
    skipped_candidates: int = 0
    excess_candidates: int = 0
    refused_messages: int = 0
    foreign_channels: int = 0
    audio_problems: int = 0


class Peer:
    """One peer connection. Made on a running event loop; `on_event` is called on it and must not block."""

    def __init__(
        self,
        *,
        audio: bool,
        ice_servers: Sequence[IceServer],
        on_event: Callable[[PeerEvent], None],
        connect_timeout: float,
        inbound_sample_rate: int,
        host_addresses: Sequence[str] | None,
        idle_interval: float,
        patience: Patience,
    ) -> None:
        quiet_rtc_logs()
        self._addresses = choose(machine_addresses()) if host_addresses is None else checked(host_addresses)
        self._connection = _new_connection(ice_servers)
        self._on_event = on_event
        self._connect_timeout = connect_timeout
        self._inbound_sample_rate = inbound_sample_rate
        self._patience = patience
        self._liveness: Liveness | None = None
        self.speech: SpeechTrack | None = SpeechTrack(idle_interval=idle_interval) if audio else None
        """What this peer sends; None without audio."""
        self.counts = PeerCounts()
        self._control: RTCDataChannel | None = None
        self._sync: RTCDataChannel | None = None
        self._transport: RTCDtlsTransport | None = None
        self._remote_described = False
        self._early_candidates: list[Candidate] = []
        self._candidates_seen = 0
        self._ready = asyncio.Event()
        self._failed = False
        self._closing: asyncio.Task[bool] | None = None
        self._connect_timer: asyncio.TimerHandle | None = None
        self._audio_pump: asyncio.Task[None] | None = None
        self._next_problem_at = 0.0
        self._connection.on("connectionstatechange", self._on_state)
        self._connection.on("track", self._on_track)

    # -------------------------------------------------------------- state

    @property
    def state(self) -> ConnectionState:
        """The peer connection's state."""
        return ConnectionState(self._connection.connectionState)

    @property
    def connected(self) -> bool:
        """Whether the connection is up and both channels are open."""
        return (
            self.state is ConnectionState.CONNECTED and self._open(self._control) and self._open(self._sync)
        )

    @property
    def max_message_size(self) -> int:
        """Bytes of the largest message that the other side takes; 64 KiB until it has said."""
        sctp = self._sctp()
        return 64 * 1024 if sctp is None else sctp_flush.remote_max_message_size(sctp)

    def doubt(self) -> None:
        """There is reason to think that the other side is gone: find out now, not at the next look."""
        if self._liveness is not None:
            self._liveness.doubt()

    # -------------------------------------------------------------- sending

    def send_control(self, text: str, *, urgent: bool = False) -> bool:
        """Send text on `voice-control`. False where it is not open or its buffer is full (counted).

        An `urgent` message may use a reserve that ordinary ones may not.

        Raises:
            MessageTooLarge: more bytes than `max_message_size`.
        """
        return self._send(self._control, text, MAX_BUFFERED_BYTES + (URGENT_RESERVE_BYTES if urgent else 0))

    def send_binary(self, data: bytes, channel: str) -> bool:
        """Send bytes on `control` or `sync`. False where it is not open or its buffer is full (counted).

        Raises:
            MessageTooLarge: more bytes than `max_message_size`.
            ValueError: no such channel.
        """
        if channel not in ("control", "sync"):
            raise ValueError(f"no channel {channel!r}: it is 'control' or 'sync'")
        return self._send(self._control if channel == "control" else self._sync, data, MAX_BUFFERED_BYTES)

    def _send(self, channel: RTCDataChannel | None, data: str | bytes, limit: int) -> bool:
        size = len(data.encode()) if isinstance(data, str) else len(data)
        if size > self.max_message_size:
            raise MessageTooLarge(f"a message of {size} bytes; the other side takes {self.max_message_size}")
        if channel is None or not self._open(channel) or channel.bufferedAmount + size > limit:
            self.counts.refused_messages += 1
            return False
        channel.send(data)
        return True

    async def flush(self, timeout: float) -> bool:
        """Wait until the other side has acknowledged everything; False when not in `timeout` seconds."""
        sctp = self._sctp()
        return sctp is not None and await sctp_flush.flushed(sctp, timeout)

    # -------------------------------------------------------------- candidates

    async def add_candidate(self, candidate: Candidate | None) -> None:
        """Use one trickled candidate; those that come before the description are held.

        None, or an empty candidate (no more will come), needs no action here. mDNS names and what else is of
        no use are dropped and counted.

        Raises:
            MalformedCandidate: not a candidate (counted as well).
        """
        if candidate is None or not candidate.candidate.strip() or self._closing is not None:
            return
        self._candidates_seen += 1
        if self._candidates_seen > MAX_CANDIDATES:
            self.counts.excess_candidates += 1
            return
        if not self._remote_described:
            self._early_candidates.append(candidate)
            return
        await self._use_candidate(candidate.candidate)

    async def _use_candidate(self, line: str) -> None:
        try:
            screened = candidates.screen(line)
        except candidates.MalformedCandidate:
            self.counts.malformed_candidates += 1
            raise
        if screened.candidate is None:
            if screened.skip is candidates.Skip.MDNS_NAME:
                self.counts.mdns_candidates += 1
            else:
                self.counts.skipped_candidates += 1
            return
        transport = self._dtls_transport()
        if transport is not None:
            await transport.transport.addRemoteCandidate(screened.candidate)

    async def _use_held_candidates(self, lines: Sequence[str]) -> None:
        """Candidates of the description, and those that came before it. What is malformed is counted only."""
        self._remote_described = True
        held = [candidate.candidate for candidate in self._early_candidates]
        self._early_candidates.clear()
        for line in [*lines[:MAX_CANDIDATES], *held]:
            try:
                await self._use_candidate(line)
            except candidates.MalformedCandidate as error:
                _log.debug("candidate ignored: %s", error)

    # -------------------------------------------------------------- the connection

    def _offer_our_addresses(self) -> None:
        transport = self._dtls_transport()
        if transport is None:
            raise PeerSetupError("the description has neither audio nor data channels")
        offer_only(transport.transport, self._addresses)

    def _dtls_transport(self) -> RTCDtlsTransport | None:
        """The one transport that everything is bundled on."""
        for transceiver in self._transceivers():
            return transceiver.receiver.transport
        sctp = self._sctp()
        return None if sctp is None else sctp.transport

    def _transceivers(self) -> list[RTCRtpTransceiver]:
        return self._connection.getTransceivers()

    def _sctp(self) -> RTCSctpTransport | None:
        return self._connection.sctp

    def _watch_decoding(self) -> None:
        for transceiver in self._transceivers():
            report_decode_errors(
                transceiver.receiver, lambda: self._audio_problem("a packet could not be decoded")
            )

    def _start_connect_timer(self) -> None:
        if self._connect_timer is None and not self._ready.is_set():
            loop = asyncio.get_running_loop()
            self._connect_timer = loop.call_later(self._connect_timeout, self._on_connect_timeout)

    def _on_connect_timeout(self) -> None:
        state = self._connection.connectionState
        missing = "its data channels did not open" if state == "connected" else f"its connection is {state}"
        self._fail(f"not connected within {self._connect_timeout:g} s: {missing}")

    def _fail(self, reason: str) -> None:
        if not self._failed and not self._ready.is_set():
            self._failed = True
            self._emit(ConnectFailed(reason))

    def _on_state(self) -> None:
        state = self.state
        self._emit(ConnectionStateChanged(state))
        transport = self._dtls_transport()
        if state is ConnectionState.CONNECTED and self._liveness is None and transport is not None:
            self._liveness = Liveness(
                transport, patience=self._patience, on_vanished=lambda: self._emit(PeerVanished())
            )
        if state is ConnectionState.FAILED or state is ConnectionState.CLOSED:
            self._fail(f"the connection {'was closed' if state is ConnectionState.CLOSED else 'failed'}")
        self._look_if_ready()

    def _look_if_ready(self) -> None:
        if self.connected:
            self._ready.set()
            if self._connect_timer is not None:
                self._connect_timer.cancel()

    # -------------------------------------------------------------- channels

    def _adopt(self, channel: RTCDataChannel) -> None:
        """Take a channel by its label; any other is closed."""
        if channel.label == CONTROL_LABEL and self._control is None:
            self._control = channel
            channel.on("open", self._on_control_open)
            channel.on("message", lambda data: self._emit(ControlReceived(data)))
            channel.on("close", lambda: self._emit(ControlClosed()))
        elif channel.label == SYNC_LABEL and self._sync is None:
            self._sync = channel
            channel.on("open", self._on_sync_open)
            channel.on("message", self._on_sync_message)
        else:
            self.counts.foreign_channels += 1
            channel.close()

    def _on_control_open(self) -> None:
        self._emit(ControlOpened())
        self._look_if_ready()

    def _on_sync_open(self) -> None:
        self._emit(SyncOpened())
        self._look_if_ready()

    def _on_sync_message(self, data: str | bytes) -> None:
        self._emit(SyncReceived(data.encode() if isinstance(data, str) else data))

    @staticmethod
    def _open(channel: RTCDataChannel | None) -> bool:
        return channel is not None and channel.readyState == "open"

    # -------------------------------------------------------------- audio

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and self._audio_pump is None and self._closing is None:
            self._audio_pump = asyncio.create_task(self._pump_audio(track), name="rtc-audio-pump")

    async def _pump_audio(self, track: MediaStreamTrack) -> None:
        try:
            async for pcm in pcm_frames(track, self._inbound_sample_rate, on_problem=self._audio_problem):
                self._emit(AudioReceived(pcm))
        except Exception as error:
            _log.exception("inbound audio stopped")
            self._audio_problem(f"inbound audio stopped: {error}")

    def _audio_problem(self, message: str) -> None:
        self.counts.audio_problems += 1
        now = asyncio.get_running_loop().time()
        if now >= self._next_problem_at:
            self._next_problem_at = now + _PROBLEM_INTERVAL_SECONDS
            self._emit(AudioProblem(message, self.counts.audio_problems))

    def _emit(self, event: PeerEvent) -> None:
        if self._closing is not None:
            return
        try:
            self._on_event(event)
        except Exception:
            # It would end aiortc's receiving task, and with it the connection.
            _log.exception("the owner of a peer failed on %s", type(event).__name__)

    # -------------------------------------------------------------- the end

    async def close(self) -> bool:
        """Close everything; within 5 s in any case. False where aiortc did not finish by itself.

        No event follows. What was not flushed is lost.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="rtc-close")
        return await asyncio.shield(self._closing)

    async def _close(self) -> bool:
        if self._connect_timer is not None:
            self._connect_timer.cancel()
        if self._liveness is not None:
            await self._liveness.aclose()
        if self.speech is not None:
            self.speech.stop()
        if self._audio_pump is not None:
            self._audio_pump.cancel()
            await asyncio.gather(self._audio_pump, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._connection.close()
                transport = self._dtls_transport()
                if transport is not None:
                    await end_ice(transport.transport, CLOSE_TIMEOUT_SECONDS)
        except TimeoutError:
            _log.warning("a peer connection did not close within %g s", CLOSE_TIMEOUT_SECONDS)
            return False
        except Exception:
            _log.exception("a peer connection failed to close")
            return False
        return True


def _new_connection(ice_servers: Sequence[IceServer]) -> RTCPeerConnection:
    servers = []
    for server in ice_servers:
        urls = [server.urls] if isinstance(server.urls, str) else server.urls
        try:
            for url in urls:
                parse_stun_turn_uri(url)
        except ValueError as error:
            raise PeerSetupError(f"ice_servers: not a stun: or turn: URL ({error})") from None
        servers.append(
            RTCIceServer(
                urls=urls,
                username=None if server.username is UNSET else server.username,
                credential=None if server.credential is UNSET else server.credential,
            )
        )
    # An empty list, not None: None means a public STUN server. One bundle: one transport, few candidates.
    return RTCPeerConnection(RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
