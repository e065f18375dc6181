"""Servers that mean no good: each thing they do is a typed record, and the client lives on in its bounds."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.integration.chat.certificates import self_signed
from tests.integration.chat.chatting import CONV, Rig, rig, upsert
from voicethere.chat import ChatHttpError, ChatLimits, ChatTimings, Reconnecting, http, selectors
from voicethere.testing.chat_server import ChatRequest, ScriptedChatServer, ScriptedSocket, Wire

MIB = 1024 * 1024
Step = Callable[[ChatRequest, Wire], Awaitable[None]]


async def alive(chat: Rig) -> None:
    """The conversation can be connected and used."""
    chat.server.on_accept(None)
    for path in ("/ws", "/api/timeline", "/chat"):
        chat.server.take_over(path, None)
    await chat.manager.reconnect(CONV)
    await chat.manager.send(CONV, "still there?")
    await chat.until(lambda: "You said: still there?" in chat.texts)
    assert chat.status == "connected"


# ------------------------------------------------------------------ frames


@pytest.mark.states("sem-chat/connect/ours-reconnect")
async def test_a_frame_of_10_mb_ends_the_socket_and_not_the_conversation() -> None:
    async with rig(reconnect=Reconnecting()) as chat:
        await chat.manager.connect(CONV)
        chat.server.sockets[0].send("x" * 10_000_000)
        await chat.until(lambda: chat.status == "closed")
        (error,) = chat.errors
        assert (error.kind, error.stage) == ("ws_error", "stream")
        assert (error.details or {})["opened"] is True
        assert (error.details or {})["code"] == 1009
        await chat.timers.fire(lambda seconds: seconds not in (0.75, 1.5))
        await chat.until(lambda: chat.status == "connected")
        await alive(chat)


async def test_a_frame_of_7_mb_is_taken() -> None:
    async with rig() as chat:
        await chat.manager.connect(CONV)
        text = "x" * 7_000_000
        chat.server.sockets[0].send(upsert("m", text, 1))
        await chat.until(lambda: chat.texts == [text])
        assert chat.errors == ()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x83\x00", 1002),  # an opcode that there is not
        (b"\x81\x81abcd" + b"x", 1002),  # masked, as only clients do
        (b"\x81\x02\xff\xfe", 1007),  # text that is no UTF-8
        (b"\xc1\x05hello", 1002),  # said to be compressed, and is not
        (b"\x80\x01x", 1002),  # goes on with a message that never began
        (b"\x88\x01\x03", 1002),  # a goodbye that is cut off
    ],
)
async def test_bytes_that_are_no_frames_are_a_socket_error(data: bytes, code: int) -> None:
    async with rig() as chat:
        await chat.manager.connect(CONV)
        chat.server.sockets[0].write(data)
        await chat.until(lambda: chat.status == "closed")
        (error,) = chat.errors
        assert (error.kind, error.stage) == ("ws_error", "stream")
        assert (error.details or {})["opened"] is True
        assert (error.details or {})["code"] in (code, 1007)
        await alive(chat)


async def test_a_flood_starves_no_other_conversation() -> None:
    async with rig() as chat:
        await chat.manager.connect(CONV)
        await chat.manager.connect("other")
        (flooding,) = chat.server.live(CONV)
        flood = asyncio.create_task(_flood(flooding, lambda n: upsert("m", f"{n}", n + 1)))
        try:
            await chat.until(lambda: chat.texts)
            await chat.manager.send("other", "hello")
            await chat.until(lambda: len(selectors.select_timeline_entities(chat.store.state, "other")) == 2)
            assert not flood.done()
        finally:
            flood.cancel()
        assert chat.errors == ()


async def test_a_flood_of_bad_frames_is_one_record() -> None:
    async with rig() as chat:
        await chat.manager.connect(CONV)
        for number in range(3_000):
            chat.server.sockets[0].send("{" * (number % 50))
        chat.server.sockets[0].send(upsert("after", "after", 1))
        await chat.until(lambda: chat.texts == ["after"])
        assert len(chat.errors) == 1
        assert len(chat.log.entries(CONV)) == 1_000


async def test_a_flood_of_entities_ends_in_a_record_and_memory_stays_bounded() -> None:
    limits = ChatLimits(timeline_bytes=2 * MIB)
    async with rig(limits=limits, reconnect=Reconnecting()) as chat:
        await chat.manager.connect(CONV)
        tracemalloc.start()
        try:
            text = "x" * 10_000
            flood = asyncio.create_task(
                _flood(chat.server.sockets[0], lambda n: upsert(f"m{n}", text, n + 1))
            )
            await chat.until(lambda: chat.status == "closed")
            flood.cancel()
            assert tracemalloc.get_traced_memory()[1] < 24 * MIB
        finally:
            tracemalloc.stop()
        (error,) = chat.errors
        assert (error.kind, error.stage) == ("ws_error", "stream")
        assert "the timeline is larger than 2,097,152 bytes" in error.message
        # More of the same would follow: nobody asks for it but the user.
        assert chat.timers.running == []


async def test_a_flood_ahead_of_the_snapshot_is_held_up() -> None:
    limits = ChatLimits(buffered_bytes=MIB)
    async with rig(limits=limits) as chat:
        snapshot = chat.server.hold("/api/timeline")
        connecting = asyncio.create_task(chat.manager.connect(CONV))
        await chat.server.until(lambda: "/api/timeline" in chat.server.paths())
        tracemalloc.start()
        try:
            text, sent = "x" * 10_000, 0

            async def flood() -> None:
                nonlocal sent
                for number in range(6_400):
                    chat.server.sockets[0].send(upsert("m", text, number + 1))
                    sent += 1
                    await chat.server.sockets[0].drain()

            flooding = asyncio.create_task(flood())
            stuck = await _until_steady(lambda: sent)
            assert stuck < 6_400
            assert tracemalloc.get_traced_memory()[1] < 24 * MIB
        finally:
            tracemalloc.stop()
        snapshot.set()
        await connecting
        await flooding
        chat.server.sockets[0].send(upsert("end", "end", 1))
        await chat.until(lambda: "end" in chat.texts)
        assert chat.entities["m"].version == 6_400
        assert chat.errors == ()


async def test_pings_that_nobody_answers_are_a_socket_error() -> None:
    async def silent(request: ChatRequest, wire: Wire) -> None:
        ScriptedSocket.accept(_socket_of(wire), request)
        await asyncio.Event().wait()

    async with rig(timings=ChatTimings(ping_interval=0.05)) as chat:
        chat.server.take_over("/ws", silent)
        await chat.manager.connect(CONV)
        await chat.until(lambda: chat.status == "closed")
        (error,) = chat.errors
        assert (error.kind, (error.details or {})["code"]) == ("ws_error", 1011)


# ------------------------------------------------------------------ snapshots


def entities(count: int, text: str = "x") -> str:
    each = ", ".join(
        f'{{"id": "e{number}", "kind": "message", "createdAtMs": {number + 1}, '
        f'"props": {{"role": "assistant", "content": "{text}"}}}}'
        for number in range(count)
    )
    return f'{{"convId": "{CONV}", "version": {count}, "entities": [{each}]}}'


async def test_a_snapshot_of_100_000_entities_is_taken() -> None:
    async with rig() as chat:
        chat.server.refuse("/api/timeline", 200, entities(100_000))
        await chat.manager.connect(CONV)
        assert len(chat.entities) == 100_000
        assert (chat.errors, chat.status) == ((), "connected")
        chat.server.sockets[0].send(upsert("e0", "newer", 100_001))
        await chat.until(lambda: chat.entities["e0"].props["content"] == "newer")


@pytest.mark.states("chat-state/producers/snapshot-failed")
async def test_a_snapshot_that_is_too_large_is_a_record() -> None:
    async with rig(limits=ChatLimits(snapshot_bytes=MIB)) as chat:
        chat.server.refuse("/api/timeline", 200, entities(100_000))
        await chat.manager.connect(CONV)
        (error,) = chat.errors
        assert (error.kind, error.stage) == ("hydrate_error", "hydrate")
        assert error.message == "timeline request failed: the answer is larger than 1,048,576 bytes"
        await alive(chat)


async def test_a_snapshot_without_an_end_is_given_up_within_its_bounds() -> None:
    async def endless(request: ChatRequest, wire: Wire) -> None:
        wire.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            wire.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await wire.drain()

    async with rig(limits=ChatLimits(snapshot_bytes=2 * MIB)) as chat:
        chat.server.take_over("/api/timeline", endless)
        tracemalloc.start()
        try:
            await chat.manager.connect(CONV)
            assert tracemalloc.get_traced_memory()[1] < 16 * MIB
        finally:
            tracemalloc.stop()
        assert chat.kinds == ["hydrate_error/hydrate"]
        await alive(chat)


@pytest.mark.states("chat-state/producers/snapshot-failed")
@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{", "no whole answer"),
        (b"HTTP/1.1 200 OK\r\n", "no whole answer"),
        (b"", "no whole answer"),
    ],
    ids=["body", "head", "nothing"],
)
async def test_a_slow_answer_is_given_up_in_time(head: bytes, words: str) -> None:
    async def slow(request: ChatRequest, wire: Wire) -> None:
        wire.write(head)
        await asyncio.Event().wait()

    async with rig(timings=ChatTimings(snapshot_timeout=0.1)) as chat:
        chat.server.take_over("/api/timeline", slow)
        await chat.manager.connect(CONV)
        (error,) = chat.errors
        assert error.kind == "hydrate_error"
        assert words in error.message
        assert chat.status == "connected"


async def test_a_refusal_whose_words_never_end_keeps_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(request: ChatRequest, wire: Wire) -> None:
        wire.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 1000\r\n\r\nNo")
        await asyncio.Event().wait()

    # For the words alone: the whole request has its time, or there would be no status on a busy machine.
    monkeypatch.setattr(http, "_TEXT_SECONDS", 0.1)
    async with rig() as chat:
        chat.server.take_over("/api/timeline", slow)
        await chat.manager.connect(CONV)
        (error,) = chat.errors
        assert (error.kind, error.status) == ("http_error", 403)
        assert error.message == "timeline request failed (403)"


async def test_the_words_of_a_refusal_are_bounded_and_printable() -> None:
    async with rig() as chat:
        chat.server.refuse("/chat", 500, b"\x1b[2Jbad\x00\xff" + b"y" * 5_000_000)
        with pytest.raises(ChatHttpError) as raised:
            await chat.manager.send(CONV, "hello")
        assert len(raised.value.message) == 2_048
        assert "\x1b" not in raised.value.message


async def test_a_compressed_snapshot_is_refused_for_it_may_be_a_bomb() -> None:
    async with rig() as chat:
        bomb = gzip.compress(b" " * 50_000_000)
        chat.server.refuse("/api/timeline", 200, bomb, [("content-encoding", "gzip")])
        await chat.manager.connect(CONV)
        (error,) = chat.errors
        assert error.kind == "hydrate_error"
        assert "encoded as 'gzip', which was not asked for" in error.message


# ------------------------------------------------------------------ resets


def _on_answer(data: bytes, *, reset: bool) -> Step:
    async def step(request: ChatRequest, wire: Wire) -> None:
        wire.write(data)
        if reset:
            wire.reset()

    return step


async def _open_then(wire: Wire, request: ChatRequest, data: bytes, *, reset: bool) -> None:
    _socket_of(wire).accept(request)
    wire.write(data)
    if reset:
        # What was written must not be lost with the connection: it is the point of the test.
        await wire.drain()
        await asyncio.sleep(0)
        wire.reset()


@pytest.mark.states(
    "chat-state/producers/snapshot-failed", "chat-state/producers/prompt-failed", "chat-state/manager/connect"
)
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "end"])
@pytest.mark.parametrize("path", ["/ws", "/api/timeline", "/chat"])
@pytest.mark.parametrize("step", ["accept", "request", "head", "status", "body"])
async def test_a_connection_that_is_cut_at_every_point(path: str, step: str, reset: bool) -> None:
    """Resets at TCP accept, behind the request, mid status line, mid head, mid body."""
    parts = {
        "request": b"",
        "status": b"HTTP/1.1 1",
        "head": b"HTTP/1.1 101 Switching Protocols\r\nupgr" if path == "/ws" else b"HTTP/1.1 200 OK\r\nconte",
        "body": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
    }
    kinds = {
        "/ws": ["ws_error/stream"],
        "/api/timeline": ["hydrate_error/hydrate"],
        "/chat": ["runtime_error/send"],
    }
    async with rig() as chat:
        if step == "accept":
            chat.server.on_accept(lambda wire: wire.reset() if reset else wire.end())
            await chat.manager.connect(CONV)
            assert chat.kinds == ["ws_error/stream", "hydrate_error/hydrate"]
        else:
            chat.server.take_over(path, _on_answer(parts[step], reset=reset))
            await chat.manager.connect(CONV)
        if path == "/chat":
            if step == "body":
                # It said yes: what follows that is of no interest.
                await chat.manager.send(CONV, "hello")
                assert chat.errors == ()
            else:
                with pytest.raises(ChatHttpError):
                    await chat.manager.send(CONV, "hello")
        if step != "accept" and (path, step) != ("/chat", "body"):
            assert chat.kinds == kinds[path]
        if chat.errors and path == "/ws":
            assert (chat.errors[0].details or {})["opened"] is False
        await alive(chat)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "end"])
@pytest.mark.parametrize(
    "data",
    [b"", b"\x81", b"\x81\x7e\x00\xff", b"\x81\x7e\x00\xff{", b"\x01\x01x"],
    ids=["behind 101", "mid head", "behind head", "mid frame", "mid message"],
)
async def test_a_socket_that_is_cut_at_every_point_behind_its_handshake(data: bytes, reset: bool) -> None:
    async def step(request: ChatRequest, wire: Wire) -> None:
        await _open_then(wire, request, data, reset=reset)

    async with rig() as chat:
        chat.server.take_over("/ws", step)
        await chat.manager.connect(CONV)
        await chat.until(lambda: chat.status == "closed")
        (error,) = chat.errors
        assert error.kind in ("ws_error", "ws_close")
        if error.kind == "ws_close":
            assert error.details == {"code": 1006, "reason": ""}
        await alive(chat)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: d3Jvbmc=\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nx: " + b"y" * 200_000,
        b"HTTP/1.1 101 Switching Protocols\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    ],
    ids=["200", "no upgrade", "wrong accept", "another protocol", "long header", "many headers"],
)
async def test_answers_that_are_no_handshake_are_a_socket_error(answer: bytes) -> None:
    async with rig() as chat:
        chat.server.take_over("/ws", _on_answer(answer, reset=False))
        await chat.manager.connect(CONV)
        (error,) = chat.errors
        assert (error.kind, error.stage) == ("ws_error", "stream")
        assert (error.details or {})["opened"] is False
        assert len(error.message) < 2_049
        await alive(chat)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,
        b"HTTP/1.1 99999 Huh\r\n\r\n",
    ],
    ids=["another protocol", "long header", "status"],
)
async def test_answers_that_are_no_http_are_records(answer: bytes) -> None:
    async with rig() as chat:
        chat.server.take_over("/api/timeline", _on_answer(answer, reset=False))
        chat.server.take_over("/chat", _on_answer(answer, reset=False))
        await chat.manager.connect(CONV)
        with pytest.raises(ChatHttpError):
            await chat.manager.send(CONV, "hello")
        assert chat.kinds == ["hydrate_error/hydrate", "runtime_error/send"]
        await alive(chat)


# ------------------------------------------------------------------ TLS and redirects


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    server_ssl, _ = self_signed(tmp_path)
    async with rig(server_ssl=server_ssl, reconnect=Reconnecting()) as chat:
        await chat.manager.connect(CONV)
        with pytest.raises(ChatHttpError, match=r"(?i)certificate"):
            await chat.manager.send(CONV, "hello")
        assert chat.kinds == ["ws_error/stream", "hydrate_error/hydrate", "runtime_error/send"]
        assert all("certificate" in error.message.lower() for error in chat.errors)
        # Time does not mend a certificate.
        assert chat.timers.running == []
        assert chat.server.requests == []


async def test_a_server_without_tls_behind_an_https_address() -> None:
    timings = ChatTimings(open_timeout=0.2, snapshot_timeout=0.2)
    async with ScriptedChatServer() as plain:
        base_url = plain.base_url.replace("http:", "https:")
        # Such a server waits for the rest of what it takes for a request; another hangs up at once.
        async with rig(base_url=base_url, timings=timings) as chat:
            await chat.manager.connect(CONV)
            assert chat.kinds == ["ws_error/stream", "hydrate_error/hydrate"]
            assert chat.status == "closed"
        plain.on_accept(lambda wire: wire.write(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        async with rig(base_url=base_url) as chat:
            await chat.manager.connect(CONV)
            assert chat.kinds == ["ws_error/stream", "hydrate_error/hydrate"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with ScriptedChatServer() as elsewhere, rig(headers={"Authorization": "secret"}) as chat:
        for path in ("/ws", "/api/timeline", "/chat"):
            chat.server.refuse(path, status, "", [("location", f"{elsewhere.base_url}{path}")])
        await chat.manager.connect(CONV)
        with pytest.raises(ChatHttpError) as raised:
            await chat.manager.send(CONV, "private words")
        assert raised.value.status == status
        assert chat.kinds == ["ws_error/stream", "http_error/hydrate", "http_error/send"]
        for error in chat.errors:
            assert f"redirected ({status}) to {elsewhere.base_url}" in error.message
            assert "use the gateway's own address as base URL" in error.message
        assert elsewhere.accepted == 0
        await alive(chat)


# ------------------------------------------------------------------


def _socket_of(wire: Wire) -> ScriptedSocket:
    return ScriptedSocket(wire.reader, wire._writer, {})


async def _flood(socket: ScriptedSocket, frame: Callable[[int], object]) -> None:
    number = 0
    while not socket.closed.is_set():
        socket.send(frame(number))
        number += 1
        await socket.drain()


async def _until_steady(number: Callable[[], int]) -> int:
    """Wait until a number has stood still for many turns of the loop."""
    async with asyncio.timeout(20):
        still, last = 0, -1
        while still < 2_000:
            still, last = (still + 1 if number() == last and last else 0), number()
            await asyncio.sleep(0)
        return last
