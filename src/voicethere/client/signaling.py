"""The client's end of the signaling socket (contract: signaling.md).

Knows the room's messages. It does not know WebRTC, nor what a session does when the socket is lost.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)

from voicethere.client.interpret import read_envelope
from voicethere.errors.records import ENVELOPE_TYPE, SessionErrorEnvelope
from voicethere.wire.session_api import Credentials
from voicethere.wire.signaling import (
    CLIENT_PEER_PREFIX,
    RUNNER_PEER_ID,
    Candidate,
    Description,
    IceCandidate,
    Join,
    PeerJoined,
    PeerLeft,
    SessionDescription,
    signaling_decoder,
)
from voicethere.wire.tagged import UndecodableMessage, encode_text

_MAX_MESSAGE_BYTES = 256 * 1024
_PING_SECONDS = 5.0
"""As the gateway does: a socket that is dead without a word is noticed within 10 s."""

_socket_log = logging.getLogger("voicethere.client.websocket")


class SignalingRefused(Exception):
    """The socket could not be opened; the words say why, without the token.

    `unauthorized`: the gateway does not take the token (any more): trying again with it is of no use.
    """

    def __init__(self, why: str, *, unauthorized: bool = False) -> None:
        super().__init__(why)
        self.unauthorized = unauthorized


class OfferReceived(msgspec.Struct, frozen=True):
    """The runner offers (again)."""

    sdp: str


class CandidateReceived(msgspec.Struct, frozen=True):
    """One of the runner's candidates; None: no more will come."""

    candidate: Candidate | None


class RunnerGone(msgspec.Struct, frozen=True):
    """The runner left the room."""


class SessionErrorSignaled(msgspec.Struct, frozen=True):
    """An error that the runner cannot send any more."""

    envelope: SessionErrorEnvelope


class SignalingProblem(msgspec.Struct, frozen=True):
    """Something on the socket that is not understood, and ignored."""

    problem: str


Signal = OfferReceived | CandidateReceived | RunnerGone | SessionErrorSignaled | SignalingProblem


class SignalingSocket:
    """One joined socket."""

    def __init__(self, socket: ClientConnection, room: str, peer_id: str) -> None:
        self._socket = socket
        self._room = room
        self.peer_id = peer_id

    @classmethod
    async def join(
        cls, credentials: Credentials, *, token: str | None = None, peer_id: str | None = None
    ) -> SignalingSocket:
        """Open the socket and join the room. `token` replaces the credentials' own once it was renewed.

        Raises:
            SignalingRefused: no connection, or the token was refused.
        """
        if _socket_log.level == logging.NOTSET:
            _socket_log.setLevel(logging.INFO)  # at DEBUG it would log the request, and with it the token
        url = _with_token(credentials.signaling_url, token or credentials.join_token)
        try:
            socket = await connect(
                url,
                max_size=_MAX_MESSAGE_BYTES,
                compression=None,
                logger=_socket_log,
                open_timeout=None,
                close_timeout=1,
                ping_interval=_PING_SECONDS,
                ping_timeout=_PING_SECONDS,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            why = (
                "the join token was refused, or the session is over"
                if status in (401, 403)
                else "not a gateway?"
            )
            raise SignalingRefused(
                f"the signaling gateway answered HTTP {status}: {why}", unauthorized=status in (401, 403)
            ) from None
        except InvalidURI:
            raise SignalingRefused(
                "the credentials' signaling_url is not a ws:// or wss:// address"
            ) from None
        except (InvalidHandshake, WebSocketException) as error:
            raise SignalingRefused(
                f"the signaling gateway's answer is no WebSocket: {type(error).__name__}"
            ) from None
        except (OSError, ValueError) as error:
            raise SignalingRefused(f"the signaling gateway cannot be reached: {_reason(error)}") from None
        peer_id = peer_id or CLIENT_PEER_PREFIX + secrets.token_hex(8)
        joined = cls(socket, credentials.room_id, peer_id)
        try:
            await joined._send(Join(room=credentials.room_id, peer_id=peer_id))
        except asyncio.CancelledError:
            socket.transport.abort()
            raise
        return joined

    async def answer(self, sdp: str) -> None:
        """Send our answer to the runner."""
        await self._send(
            Description(
                type="answer",
                room=self._room,
                peer_id=self.peer_id,
                target_peer_id=RUNNER_PEER_ID,
                sdp=SessionDescription(type="answer", sdp=sdp),
            )
        )

    async def signals(self) -> AsyncIterator[Signal]:
        """What comes in, until the socket is closed by either side."""
        try:
            async for data in self._socket:
                signal = self._understand(data)
                if signal is not None:
                    yield signal
        except ConnectionClosed:
            return

    async def close(self) -> None:
        """Leave the room."""
        await self._socket.close()

    async def _send(self, message: msgspec.Struct) -> None:
        try:
            await self._socket.send(encode_text(message))
        except ConnectionClosed:
            return  # `signals` ends, which is where the loss is noticed

    def _understand(self, data: str | bytes) -> Signal | None:
        if isinstance(data, bytes):
            return SignalingProblem("a binary frame on the signaling socket")
        try:
            fields = _as_session_error(data)
            message = signaling_decoder.decode(data) if fields is None else None
        except UndecodableMessage as error:
            return SignalingProblem(f"a malformed signaling message: {error}")
        if fields is not None:
            envelope = read_envelope(fields)
            if envelope is None:
                return SignalingProblem("a session_error without code, message or session_id")
            return SessionErrorSignaled(envelope)
        match message:
            case Description(type="offer"):
                if not self._from_runner(message):
                    return SignalingProblem("an offer that is not the runner's, or not for us")
                return OfferReceived(message.sdp.sdp)
            case IceCandidate():
                if not self._from_runner(message):
                    return SignalingProblem("a candidate that is not the runner's, or not for us")
                return CandidateReceived(message.candidate)
            case PeerLeft(peer_id=peer_id):
                return RunnerGone() if peer_id == RUNNER_PEER_ID else None
            case PeerJoined():
                return None
            case _:
                return SignalingProblem("a signaling message of a type that a client does not take")

    def _from_runner(self, message: Description | IceCandidate) -> bool:
        return (
            message.room == self._room
            and message.peer_id == RUNNER_PEER_ID
            and message.target_peer_id == self.peer_id
        )


def _as_session_error(data: str) -> dict[str, Any] | None:
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UndecodableMessage(str(error)) from error
    return fields if isinstance(fields, dict) and fields.get("type") == ENVELOPE_TYPE else None


def _with_token(url: str, token: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SignalingRefused("the credentials' signaling_url is not an address") from None
    query = urlencode([*parse_qsl(parts.query), ("token", token)])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _reason(error: Exception) -> str:
    # An OSError's own words name the address; those of others might name the URL with the token.
    return str(error) if isinstance(error, OSError) else type(error).__name__
