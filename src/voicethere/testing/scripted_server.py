"""A platform of one session that does what a test tells it: session API, signaling and a runner's peer.

For tests of clients. It follows the contract until told otherwise, over real HTTP, a real WebSocket and
real WebRTC on this machine; there is no agent behind it. `cut_wires` makes a peer vanish without
a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import secrets
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from voicethere.adapters.rtc.candidates import MalformedCandidate
from voicethere.adapters.rtc.descriptions import BadDescription
from voicethere.adapters.rtc.events import AudioReceived, ControlReceived, PeerEvent
from voicethere.adapters.rtc.peer import Peer
from voicethere.adapters.rtc.server_peer import ServerPeer
from voicethere.wire.session_api import Credentials, Mode
from voicethere.wire.signaling import RUNNER_PEER_ID, Description, IceCandidate, Join, signaling_decoder
from voicethere.wire.tagged import UndecodableMessage

_WAIT_SECONDS = 10.0


class ScriptedRunner:
    """The runner's end of the session: one peer at a time, and everything that came from it."""

    def __init__(self, *, audio: bool) -> None:
        self._audio = audio
        self._changed = asyncio.Event()
        self.peer: ServerPeer | None = None
        self.events: list[PeerEvent] = []
        """Without audio, which is in `heard`."""
        self.heard = bytearray()
        """PCM from the client: s16 mono at 16 kHz."""

    @property
    def control(self) -> list[Any]:
        """Texts from the client on voice-control, parsed where they are JSON."""
        return [_parsed(event.data) for event in self.events if isinstance(event, ControlReceived)]

    async def new_peer(self) -> ServerPeer:
        """A fresh peer for a fresh offer; the earlier one is closed."""
        if self.peer is not None:
            await self.peer.close()
        self.peer = ServerPeer(audio=self._audio, on_event=self._on_event)
        return self.peer

    def send(self, payload: Any) -> None:
        """Send JSON (or, if it is text, that text as it is) on voice-control.

        Raises:
            ConnectionError: the channel is not open.
        """
        text = payload if isinstance(payload, str) else msgspec.json.encode(payload).decode()
        if self.peer is None or not self.peer.send_control(text):
            raise ConnectionError("voice-control is not open")

    async def until(
        self, condition: Callable[[ScriptedRunner], bool], timeout: float = _WAIT_SECONDS
    ) -> None:
        """Wait until `condition(runner)` holds.

        Raises:
            TimeoutError: it did not in time.
        """
        async with asyncio.timeout(timeout):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def connected(self) -> None:
        """Wait until both channels are open."""
        await self.until(lambda runner: runner.peer is not None and runner.peer.connected)

    def _on_event(self, event: PeerEvent) -> None:
        if isinstance(event, AudioReceived):
            self.heard += event.pcm
        else:
            self.events.append(event)
        self._changed.set()


class ScriptedPlatform:
    """Session API and signaling of one session, on ports of its own.

    Args:
        mode: of the session.
        offers: whether the runner offers when a client joins.
        answers_used: whether the runner uses the client's answer.
        polls: what `GET /v1/sessions/{id}` answers, one object per poll, the last one for good;
            ready with credentials by default.

    Example:
        >>> async with ScriptedPlatform(mode=Mode.DATA) as platform:
        ...     async with connect_session(platform.credentials()) as session:
        ...         platform.runner.send({"type": "session_error", ...})
    """

    def __init__(
        self,
        *,
        mode: Mode = Mode.DATA,
        offers: bool = True,
        answers_used: bool = True,
        polls: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        self.mode = mode
        self.session_id = "session-" + secrets.token_hex(4)
        self.room_id = "room-" + secrets.token_hex(4)
        self.token = "token-" + secrets.token_hex(16)
        self.runner = ScriptedRunner(audio=mode.has_audio)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        """HTTP requests: method, path, headers (lower-case names), body."""
        self.signaled: list[dict[str, Any]] = []
        """Messages of the client on the signaling socket."""
        self._offers = offers
        self._answers_used = answers_used
        self._polls = list(polls) if polls is not None else None
        self._http: asyncio.Server | None = None
        self._signaling: Server | None = None
        self._socket: ServerConnection | None = None
        self._peer_id = ""

    async def __aenter__(self) -> ScriptedPlatform:
        self._http = await asyncio.start_server(self._serve_http, "127.0.0.1", 0)
        self._signaling = await serve(
            self._serve_socket, "127.0.0.1", 0, process_request=self._check_token, compression=None
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.runner.peer is not None:
            await self.runner.peer.close()
        if self._signaling is not None:
            self._signaling.close()
            await self._signaling.wait_closed()
        if self._http is not None:
            self._http.close()
            await self._http.wait_closed()

    @property
    def api_base(self) -> str:
        """What a client takes as `api_base`."""
        assert self._http is not None  # entered
        return f"http://127.0.0.1:{self._http.sockets[0].getsockname()[1]}"

    def credentials(self, **changes: Any) -> Credentials:
        """The session's credentials, with `changes`."""
        assert self._signaling is not None  # entered
        port = next(iter(self._signaling.sockets)).getsockname()[1]
        credentials = Credentials(
            session_id=self.session_id,
            mode=self.mode,
            join_token=self.token,
            signaling_url=f"ws://127.0.0.1:{port}/v1/signaling",
            room_id=self.room_id,
            ice_servers=[],
            expires_at="2036-01-01T00:00:00.000Z",
        )
        return msgspec.structs.replace(credentials, **changes)

    async def signal(self, message: Any) -> None:
        """Send a message (or, if it is text or bytes, that as it is) to the client on its socket."""
        assert self._socket is not None  # a client joined
        raw = message if isinstance(message, str | bytes) else msgspec.json.encode(message).decode()
        await self._socket.send(raw)

    async def offer(self) -> None:
        """Offer to the client that joined last, with a fresh peer."""
        peer = await self.runner.new_peer()
        await self.signal(
            {
                "type": "offer",
                "room": self.room_id,
                "peerId": RUNNER_PEER_ID,
                "targetPeerId": self._peer_id,
                "sdp": {"type": "offer", "sdp": await peer.offer()},
            }
        )

    async def close_signaling(self) -> None:
        """Close the client's socket."""
        if self._socket is not None:
            await self._socket.close()

    # -------------------------------------------------------------- signaling

    def _check_token(self, connection: ServerConnection, request: Request) -> Response | None:
        given = parse_qs(urlsplit(request.path).query).get("token", [""])[0]
        if given != self.token:
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "the token is not valid\n")
        return None

    async def _serve_socket(self, socket: ServerConnection) -> None:
        self._socket = socket
        with contextlib.suppress(ConnectionClosed):
            async for data in socket:
                self.signaled.append(msgspec.json.decode(data))
                with contextlib.suppress(UndecodableMessage, BadDescription, MalformedCandidate):
                    await self._on_signal(signaling_decoder.decode(data))

    async def _on_signal(self, message: object) -> None:
        match message:
            case Join(peer_id=peer_id):
                self._peer_id = peer_id
                await self.signal({"type": "peer-joined", "peerId": RUNNER_PEER_ID})
                if self._offers:
                    await self.offer()
            case Description(type="answer") if self._answers_used and self.runner.peer is not None:
                await self.runner.peer.answer(message.sdp.sdp)
            case IceCandidate() if self.runner.peer is not None:
                await self.runner.peer.add_candidate(message.candidate)

    # -------------------------------------------------------------- the session API

    async def _serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")
            method, path, _ = first.split(" ", 2)
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
                if name
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append((method, path, headers, body))
            status, answer = self._answer(method, path)
            data = msgspec.json.encode(answer)
            writer.write(
                f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(data)}\r\nconnection: close\r\n\r\n".encode()
                + data
            )
            await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _answer(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        if method == "POST" and path == "/v1/sessions":
            return 202, {"session_id": self.session_id, "status": "queued"}
        if method == "GET" and path == f"/v1/sessions/{self.session_id}":
            return 200, self._next_poll()
        error = {"code": "NOT_FOUND", "message": f"no {path}", "request_id": "scripted"}
        return 404, {"error": error}

    def _next_poll(self) -> dict[str, Any]:
        if self._polls is None:
            credentials = msgspec.to_builtins(self.credentials())
            return {"session_id": self.session_id, "status": "ready", "credentials": credentials}
        return self._polls.pop(0) if len(self._polls) > 1 else self._polls[0]


def cut_wires(peer: Peer) -> None:
    """Make a peer vanish as a frozen process or a lost network does: deaf and mute, and nobody is told."""
    transport = peer._dtls_transport()
    assert transport is not None
    for protocol in transport.transport._connection._protocols:
        protocol.datagram_received = _ignore  # type: ignore[method-assign,assignment]
        protocol.transport.sendto = _ignore  # type: ignore[method-assign,assignment]


def _ignore(*_: object) -> None:
    return


def _parsed(data: str | bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return data
