"""A chat gateway by somebody else, in two tempers: one leaves out whatever may be, one adds all there is.

Written from the wire contract alone, down to HTTP and WebSocket frames (RFC 9112, RFC 6455); it shares no
code with the platform.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import struct
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CREATED = 1_767_225_600_000


class ForeignSocket:
    """The server's end of a WebSocket. `parts`: in how many fragments each text goes out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, parts: int) -> None:
        self._reader = reader
        self._writer = writer
        self._parts = parts

    def upgrade(self, key: str) -> None:
        accept = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
        self._writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )

    def send(self, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        data = text.encode()
        size = -(-len(data) // self._parts)
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        for number, piece in enumerate(pieces):
            opcode = 0x1 if number == 0 else 0x0
            self._frame(opcode, piece, last=number == len(pieces) - 1)
            if self._parts > 1 and number == 0:
                self._frame(0x9, b"between fragments")

    def _frame(self, opcode: int, data: bytes, *, last: bool = True) -> None:
        head = bytes([(0x80 if last else 0) | opcode])
        if len(data) < 126:
            head += bytes([len(data)])
        elif len(data) < 65_536:
            head += b"\x7e" + struct.pack(">H", len(data))
        else:
            head += b"\x7f" + struct.pack(">Q", len(data))
        self._writer.write(head + data)

    async def until_closed(self) -> None:
        """Answer pings and the close; whatever else a client says means nothing."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, second = await self._reader.readexactly(2)
                length = second & 0x7F
                if length == 126:
                    (length,) = struct.unpack(">H", await self._reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack(">Q", await self._reader.readexactly(8))
                assert second & 0x80, "a client masks its frames"
                mask = await self._reader.readexactly(4)
                data = await self._reader.readexactly(length)
                plain = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
                if first & 0x0F == 0x9:
                    self._frame(0xA, plain)
                elif first & 0x0F == 0x8:
                    self._frame(0x8, plain)
                    return


class ForeignServer:
    """`base_url` is what clients are given. `prompts` are the bodies of accepted prompts, `queries` those of
    sockets. It speaks one conversation."""

    parts = 1

    def __init__(self) -> None:
        self.prompts: list[Json] = []
        self.queries: list[dict[str, list[str]]] = []
        self._sockets: list[ForeignSocket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> ForeignServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def base_url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    # ------------------------------------------------------------------ what it says

    def greet(self, socket: ForeignSocket) -> None:
        """What a socket hears first."""

    def answer(self, prompt: str) -> None:
        """What everybody hears of a prompt."""
        raise AssertionError("a temper answers")

    def timeline(self) -> Json:
        """The snapshot."""
        raise AssertionError("a temper has a timeline")

    def accepted(self) -> bytes:
        """The answer to a prompt."""
        raise AssertionError("a temper accepts")

    def as_answer(self, body: bytes) -> bytes:
        """The answer that holds the snapshot."""
        raise AssertionError("a temper answers")

    def tell(self, value: Any) -> None:
        """Send a frame to everybody."""
        for socket in self._sockets:
            socket.send(value)

    # ------------------------------------------------------------------ HTTP

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._exchange(reader, writer)
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
        parts = urlsplit(target)
        match method, parts.path:
            case "GET", "/ws":
                socket = ForeignSocket(reader, writer, self.parts)
                socket.upgrade(headers["sec-websocket-key"])
                self.queries.append(parse_qs(parts.query))
                self.greet(socket)
                self._sockets.append(socket)
                try:
                    await socket.until_closed()
                finally:
                    self._sockets.remove(socket)
            case "GET", "/api/timeline":
                writer.write(self.as_answer(json.dumps(self.timeline()).encode()))
            case "POST", "/chat":
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.prompts.append(body)
                writer.write(self.accepted())
                self.answer(body["prompt"])
            case _:
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()


class BareServer(ForeignServer):
    """Everything optional is left out: proto3 JSON without zeros, bodies that end with the connection, frames
    without numbers, entities without versions or times."""

    def __init__(self) -> None:
        super().__init__()
        self._entities: dict[str, Json] = {}

    def accepted(self) -> bytes:
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    def as_answer(self, body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\n\r\n" + body

    def timeline(self) -> Json:
        told: Json = {"entities": list(self._entities.values())} if self._entities else {}
        return {"convId": "conv", **told}

    def answer(self, prompt: str) -> None:
        number = len(self.prompts)
        self._upsert(f"u{number}", {"role": "user", "content": prompt})
        reply = f"a{number}"
        self.tell({"sem": True, "event": {"type": "llm.start", "id": reply}})
        self._upsert(reply, {"role": "assistant", "content": "So you ", "streaming": True})
        self.tell({"sem": True, "event": {"type": "llm.delta", "id": reply, "data": {}}})
        # Properties merge: what is left out here would stay as it was.
        whole = f"So you say {prompt!r}."
        self._upsert(reply, {"role": "assistant", "content": whole, "streaming": False})
        self.tell({"sem": True, "event": {"type": "llm.final", "id": reply}})

    def _upsert(self, name: str, props: Json) -> None:
        entity = {"id": name, "kind": "message", "props": props}
        self._entities[name] = entity
        event = {"type": "timeline.upsert", "id": name, "data": {"entity": entity}}
        self.tell({"sem": True, "event": event})


class RichServer(ForeignServer):
    """Everything optional is there, and more: numbers as strings, names that nobody knows, chunked bodies,
    fragmented frames, frames twice and in no order, thinking, statistics, every type of event."""

    parts = 3

    def __init__(self) -> None:
        super().__init__()
        self._version = 7
        self._seq = 40
        self._entities: dict[str, Json] = {}
        self._keep("story", "message", {"role": "assistant", "content": "Once upon a time.", "mood": "calm"})
        self._keep(
            "starters",
            "suggestions",
            {"source": "starter", "items": ["Go on", "Stop"], "consumedAt": None},
        )

    def accepted(self) -> bytes:
        body = b'{"status":"queued","queue_position":0}'
        return (
            b"HTTP/1.1 201 Created\r\nServer: of-somebody-else/1.0\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + _chunked(body)
        )

    def as_answer(self, body: bytes) -> bytes:
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + _chunked(body)
        )

    def timeline(self) -> Json:
        return {
            "convId": "conv",
            "version": str(self._version),
            "serverTimeMs": str(_CREATED),
            "entities": list(self._entities.values()),
            "nextPageToken": "",
        }

    def greet(self, socket: ForeignSocket) -> None:
        """Ahead of any snapshot: out of order, twice, without numbers, and what is no frame at all."""
        second = self._keep("log-of-old", "message", {"role": "assistant", "content": "There was a phone."})
        third = self._keep(
            "log-of-old", "message", {"role": "assistant", "content": "There was a telephone."}
        )
        late, early = self._numbered(second, 42), self._numbered(third, 43)
        again = self._upserted("story")
        for frame in (
            early,
            {"hello": "world"},
            late,
            early,
            self._event("weather.report", "w", {"sun": True}),
            again,
            [1, 2, 3],
        ):
            socket.send(frame)

    def answer(self, prompt: str) -> None:
        number = len(self.prompts)
        self._tell_upsert(f"u{number}", "message", {"role": "user", "content": prompt, "streaming": False})
        thought, reply = f"t{number}", f"a{number}"
        model = {"model": "foreign-1", "temperature": 0.3, "usage": None}
        self.tell(self._event("llm.thinking.start", thought, {"id": thought, "role": "thinking"}, model))
        self.tell(self._event("llm.thinking.delta", thought, _delta(thought, "Hm.", "Hm."), {"model": 5}))
        self.tell(self._event("llm.thinking.summary", thought, {"id": thought, "text": "Hm."}))
        self.tell(self._event("llm.thinking.final", thought, {"id": thought}))
        self.tell(self._event("log", "l1", {"level": "warn", "message": "slow", "fields": {"ms": 12}}))
        self.tell(self._event("agent.mode", "mode", {"title": "Poet", "data": {"rhymes": True}}))
        pause = {"pauseId": "p", "phase": "pre", "summary": "Wait", "deadlineMs": str(_CREATED), "extra": {}}
        self.tell(self._event("debugger.pause", "pause", pause))
        self.tell(self._event("llm.start", reply, {"id": reply, "role": "assistant", "lang": "en"}, model))
        said = ""
        for part in ("So ", "you ", f"say {prompt!r}."):
            said += part
            frame = self._event("llm.delta", reply, _delta(reply, part, said), model)
            self.tell(frame)
            self._tell_upsert(reply, "message", {"role": "assistant", "content": said, "streaming": True})
        usage = {"inputTokens": 100, "outputTokens": 50, "cachedTokens": 20, "fancyTokens": 1}
        self.tell(
            self._event(
                "llm.final",
                reply,
                {"id": reply, "text": said},
                {"model": "foreign-1", "usage": usage, "durationMs": 2000, "trace": {"id": 1}},
            )
        )
        self._tell_upsert(reply, "message", {"role": "assistant", "content": said, "streaming": False})

    def _keep(self, name: str, kind: str, props: Json) -> Json:
        self._version += 1
        known = self._entities.get(name, {"props": {}})
        self._entities[name] = {
            "id": name,
            "kind": kind,
            "createdAtMs": str(_CREATED),
            "updatedAtMs": _CREATED + self._version,
            "props": {**known["props"], **props},
            "meta": {"origin": "abroad"},
            "etag": [self._version],
        }
        return self._upserted(name)

    def _upserted(self, name: str) -> Json:
        data = {
            "convId": "conv",
            "version": str(self._version),
            "entity": self._entities[name],
            "reason": "edit",
        }
        return {"sem": True, "event": {"type": "timeline.upsert", "id": name, "data": data}, "v": 2}

    def _numbered(self, frame: Json, seq: float) -> Json:
        return {**frame, "event": {**frame["event"], "seq": seq, "stream_id": "s-1"}}

    def _tell_upsert(self, name: str, kind: str, props: Json) -> None:
        self._seq += 1
        self.tell(self._numbered(self._keep(name, kind, props), self._seq))

    def _event(self, kind: str, name: str, data: Any, metadata: Any = None) -> Json:
        self._seq += 1
        event = {"type": kind, "id": name, "seq": self._seq, "stream_id": "", "data": data, "at": "today"}
        return {"sem": True, "event": event if metadata is None else {**event, "metadata": metadata}}


def _delta(name: str, delta: str, cumulative: str) -> Json:
    return {"id": name, "delta": delta, "cumulative": cumulative}


def _chunked(body: bytes) -> bytes:
    middle = len(body) // 2
    chunks = [body[:middle], body[middle:]]
    return b"".join(b"%x;name=value\r\n%s\r\n" % (len(each), each) for each in chunks if each) + b"0\r\n\r\n"
