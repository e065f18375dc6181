"""A chat gateway that does what a test tells it: prompts, timelines and sockets of SEM frames on one port.

For tests of chat clients. It speaks sem-chat in full until told otherwise, over real TCP (or TLS) on this
machine; there is no agent behind it. It can also misbehave at every step: `refuse`, `hold`, `take_over`, and
what `ScriptedSocket` can do to a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket as sockets
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

_WAIT_SECONDS = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ChatRequest(msgspec.Struct, frozen=True):
    """One request. `path` is without the base and the query; header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    head: bytes


class Wire:
    """One TCP connection, for a test that wants to write its bytes itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        if not self._writer.is_closing():
            self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken most of what was sent."""
        await self._writer.drain()

    def end(self) -> None:
        """Close the connection as a server does that has nothing to add (FIN)."""
        self._writer.close()

    def reset(self) -> None:
        """Cut the connection off (RST)."""
        raw: sockets.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()


class ScriptedSocket(Wire):
    """One WebSocket of a client. `query` is what it was opened with."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, query: dict[str, str]
    ) -> None:
        super().__init__(reader, writer)
        self.query = query
        self.closed = asyncio.Event()
        """Set when the client's end of it is closed."""
        self._protocol = ServerProtocol(max_size=None)

    @property
    def conv_id(self) -> str:
        """The conversation's id."""
        return self.query.get("conv_id", "")

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent: neither end has said goodbye, and the connection is there."""
        return self._protocol.state is State.OPEN and not self.closed.is_set()

    def send(self, frame: Any) -> None:
        """Send a frame: text as it is, bytes as a binary frame, anything else as JSON."""
        if isinstance(frame, bytes):
            self._protocol.send_binary(frame)
        else:
            text = frame.encode() if isinstance(frame, str) else msgspec.json.encode(frame)
            self._protocol.send_text(text)
        self._flush()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye."""
        self._protocol.send_close(code, reason)
        self._flush()

    def accept(self, request: ChatRequest) -> None:
        """Answer the client's handshake."""
        self._protocol.receive_data(request.head)
        (event,) = self._protocol.events_received()
        assert isinstance(event, Request)  # what a handshake consists of
        self._protocol.send_response(self._protocol.accept(event))
        self._flush()

    async def serve(self) -> None:
        """Answer pings and goodbyes until the connection is gone."""
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(65_536):
                self._protocol.receive_data(data)
                for event in self._protocol.events_received():
                    assert isinstance(event, Frame)  # after the handshake there is nothing else
                self._flush()
        self.closed.set()
        self.end()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.write(data)
            else:
                self.end()


Handler = Callable[[ChatRequest, Wire], Awaitable[None]]
OnPrompt = Callable[["ScriptedChatServer", str, str], object]


class ScriptedChatServer:
    """A gateway with any number of conversations, which exist as soon as anybody asks for them.

    Args:
        base: the path of the base URL.
        on_prompt: called as `on_prompt(server, conv_id, prompt)` for each accepted prompt; it may send
            frames. By default the prompt is echoed as the user's message and answered with "You said: …", as
            a stream.
        ssl_context: for `https` and `wss`.

    Example:
        >>> async with ScriptedChatServer() as server:
        ...     manager = ConversationManager(store, server.base_url)
        ...     await manager.connect("conv-1")
        ...     server.upsert("conv-1", "m1", "message", {"role": "assistant", "content": "Hi."})
    """

    def __init__(
        self,
        *,
        base: str = "/c/test",
        on_prompt: OnPrompt | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.on_prompt: OnPrompt = on_prompt or answer
        self.requests: list[ChatRequest] = []
        self.sockets: list[ScriptedSocket] = []
        """All that were ever opened."""
        self.accepted = 0
        """TCP connections."""
        self._base = base
        self._ssl_context = ssl_context
        self._timelines: dict[str, dict[str, dict[str, Any]]] = {}
        self._versions: dict[str, int] = {}
        self._seqs: dict[str, int] = {}
        self._answers: dict[str, list[bytes]] = {}
        self._holds: dict[str, asyncio.Event] = {}
        self._handlers: dict[str, Handler] = {}
        self._on_accept: Callable[[Wire], object] | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> ScriptedChatServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._ssl_context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None  # entered
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def base_url(self) -> str:
        """What a client takes as base URL."""
        assert self._server is not None  # entered
        scheme = "http" if self._ssl_context is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{self._base}"

    @property
    def prompts(self) -> list[dict[str, Any]]:
        """The bodies of all prompts, refused ones too."""
        return [msgspec.json.decode(request.body) for request in self.requests if request.path == "/chat"]

    def paths(self) -> list[str]:
        """The paths of all requests, in order."""
        return [request.path for request in self.requests]

    async def until(self, condition: Callable[[], object], timeout: float = _WAIT_SECONDS) -> None:
        """Wait until `condition()` holds: looked at after each request, socket and end of a socket.

        Raises:
            TimeoutError: it did not in time.
        """
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    # ------------------------------------------------------------------ conversations

    def upsert(self, conv_id: str, entity_id: str, kind: str, props: dict[str, Any]) -> None:
        """Change the timeline: properties merge, the version grows, every socket hears of it."""
        now = int(time.time() * 1000)
        timeline = self._timelines.setdefault(conv_id, {})
        version = self._versions[conv_id] = self._versions.get(conv_id, 0) + 1
        known = timeline.get(entity_id, {"createdAtMs": now, "props": {}, "meta": {}})
        entity = {**known, "id": entity_id, "kind": kind, "updatedAtMs": now}
        entity["props"] = {**known["props"], **props}
        timeline[entity_id] = entity
        self.frame(conv_id, "timeline.upsert", entity_id, self._upserted(conv_id, version, entity))

    def frame(
        self, conv_id: str, type: str, id: str, data: Any = None, metadata: dict[str, Any] | None = None
    ) -> None:
        """Send an event to every socket of the conversation, with the next `seq`."""
        seq = self._seqs[conv_id] = self._seqs.get(conv_id, 0) + 1
        event = {"type": type, "id": id, "seq": seq, "data": data}
        if metadata is not None:
            event["metadata"] = metadata
        for socket in self.live(conv_id):
            socket.send({"sem": True, "event": event})

    def live(self, conv_id: str) -> list[ScriptedSocket]:
        """The sockets of a conversation that are open."""
        return [socket for socket in self.sockets if socket.conv_id == conv_id and socket.is_open]

    def snapshot(self, conv_id: str) -> dict[str, Any]:
        """What `GET {base}/api/timeline` answers."""
        return {
            "convId": conv_id,
            "version": self._versions.get(conv_id, 0),
            "serverTimeMs": int(time.time() * 1000),
            "entities": list(self._timelines.get(conv_id, {}).values()),
        }

    # ------------------------------------------------------------------ misbehaving

    def refuse(
        self, path: str, status: int, body: str | bytes = "", headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Answer the next request to `path` (`/chat`, `/api/timeline`, `/ws`) so; several wait in line."""
        self._answers.setdefault(path, []).append(http_answer(status, body, headers))

    def hold(self, path: str) -> asyncio.Event:
        """Answer nothing on `path` until the event is set."""
        event = self._holds[path] = asyncio.Event()
        return event

    def take_over(self, path: str, handler: Handler | None) -> None:
        """Let `handler(request, wire)` answer on `path`; the connection is closed after it. None: no more."""
        if handler is None:
            self._handlers.pop(path, None)
        else:
            self._handlers[path] = handler

    def on_accept(self, handler: Callable[[Wire], object] | None) -> None:
        """Let `handler(wire)` do to each new connection what it likes, ahead of any request."""
        self._on_accept = handler

    # ------------------------------------------------------------------ serving

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._connected(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        try:
            if self._on_accept is not None:
                self._on_accept(wire)
            while not writer.is_closing() and await self._exchange(reader, writer, wire):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._changed.set()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire) -> bool:
        request = await self._request(reader)
        self.requests.append(request)
        self._changed.set()
        held = self._holds.get(request.path)
        if held is not None:
            await held.wait()
        if self._answers.get(request.path):
            wire.write(self._answers[request.path].pop(0))
            # A socket's client hangs up by itself.
            return request.path != "/ws"
        handler = self._handlers.get(request.path)
        if handler is not None:
            await handler(request, wire)
            await wire.drain()
            return False
        if request.path == "/ws":
            await self._socket(request, reader, writer)
            return False
        wire.write(self._answer(request))
        return True

    async def _request(self, reader: asyncio.StreamReader) -> ChatRequest:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        parts = urlsplit(target)
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        return ChatRequest(method, parts.path.removeprefix(self._base), query, headers, body, head)

    def _answer(self, request: ChatRequest) -> bytes:
        if (request.method, request.path) == ("GET", "/api/timeline"):
            body = msgspec.json.encode(self.snapshot(request.query.get("conv_id", "")))
            return http_answer(200, body, [("content-type", "application/json")])
        if (request.method, request.path) == ("POST", "/chat"):
            fields = msgspec.json.decode(request.body)
            self.on_prompt(self, fields["conv_id"], fields["prompt"])
            return http_answer(202)
        return http_answer(404, f"no {request.method} {request.path}")

    async def _socket(
        self, request: ChatRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        socket = ScriptedSocket(reader, writer, request.query)
        socket.accept(request)
        version = self._versions.get(socket.conv_id, 0)
        for entity in self._timelines.get(socket.conv_id, {}).values():
            # The latest entities again, without `seq`: a client may have fetched its snapshot too early.
            data = self._upserted(socket.conv_id, version, entity)
            socket.send({"sem": True, "event": {"type": "timeline.upsert", "id": entity["id"], "data": data}})
        self.sockets.append(socket)
        self._changed.set()
        await socket.serve()

    def _upserted(self, conv_id: str, version: int, entity: dict[str, Any]) -> dict[str, Any]:
        return {"convId": conv_id, "version": version, "entity": entity}


def answer(server: ScriptedChatServer, conv_id: str, prompt: str) -> None:
    """The default `on_prompt`: the user's message, then "You said: …" as a stream of two parts."""
    number = len(server.prompts)
    message, parts = f"a{number}", ("You said: ", prompt)
    server.upsert(conv_id, f"u{number}", "message", {"role": "user", "content": prompt, "streaming": False})
    server.frame(conv_id, "llm.start", message, {"id": message, "role": "assistant"})
    said = ""
    for part in parts:
        said += part
        server.frame(conv_id, "llm.delta", message, {"id": message, "delta": part, "cumulative": said})
        server.upsert(conv_id, message, "message", {"role": "assistant", "content": said, "streaming": True})
    server.frame(conv_id, "llm.final", message, {"id": message, "text": said})
    server.upsert(conv_id, message, "message", {"role": "assistant", "content": said, "streaming": False})


def http_answer(status: int, body: str | bytes = "", headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """An HTTP/1.1 answer as it goes over the wire."""
    data = body.encode() if isinstance(body, str) else body
    given = "".join(f"{name}: {value}\r\n" for name, value in headers)
    phrase = http.HTTPStatus(status).phrase
    return f"HTTP/1.1 {status} {phrase}\r\n{given}content-length: {len(data)}\r\n\r\n".encode() + data
