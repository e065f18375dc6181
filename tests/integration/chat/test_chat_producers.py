"""The producers of error records, row by row of the contract's table, against a real server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.chat.chatting import CONV, delta, rig, upsert


@pytest.mark.states(
    "chat-state/manager/connect",
    "chat-state/producers/socket-error",
    "chat-state/producers/socket-error/opened",
    "chat-state/producers/socket-closed/after-error",
    "chat-state/connection/close-after-error",
    "seed-2/producers/socket-error",
    "sem-chat/phases/ws.error",
)
async def test_a_socket_that_does_not_open() -> None:
    """chat-state: "socket error | `ws_error` | `stream`"; "the close that follows makes it `closed`"."""
    async with rig() as chat:
        chat.server.refuse("/ws", 500, "broken")
        await chat.manager.connect(CONV)
        (error,) = chat.errors
        assert (error.kind, error.stage, error.source) == ("ws_error", "stream", "socket")
        assert error.details == {"opened": False, "status": 500}
        assert error.message == "the socket was refused (500): broken"
        assert chat.statuses == ["connecting", "error", "closed"]
        assert [each for each in chat.seen if each.startswith("ws.")] == ["ws.error", "ws.close"]


@pytest.mark.states(
    "chat-state/producers/socket-error",
    "chat-state/producers/socket-error/opened",
    "chat-state/producers/socket-error/streaming",
    "chat-state/producers/socket-closed/after-error",
    "chat-state/connection/close-after-error",
    "sem-chat/text/lost-socket",
)
async def test_a_socket_that_breaks() -> None:
    """chat-state: "streaming stops; `details.opened` tells whether it had been open"."""
    async with rig() as chat:
        await chat.manager.connect(CONV)
        chat.server.sockets[0].send(delta("s", "abc"))
        await chat.until(lambda: chat.is_streaming)
        chat.server.sockets[0].reset()
        await chat.until(lambda: chat.status == "closed")
        (error,) = chat.errors
        assert (error.kind, error.stage) == ("ws_error", "stream")
        assert (error.details or {})["opened"] is True
        assert not chat.is_streaming
        assert chat.statuses == ["connecting", "connected", "error", "closed"]


@pytest.mark.states(
    "chat-state/producers/socket-closed",
    "chat-state/producers/socket-closed/details",
    "chat-state/producers/socket-closed/streaming",
    "seed-2/problem/metadata/close-code",
)
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going away"), (4001, "no \u202e more")])
async def test_a_socket_that_the_server_closes(code: int, reason: str) -> None:
    """chat-state: "socket closed unexpectedly … | `ws_close` | `disconnect` | close code and reason"."""
    async with rig() as chat:
        await chat.manager.connect(CONV)
        chat.server.sockets[0].send(delta("s", "abc"))
        await chat.until(lambda: chat.is_streaming)
        chat.server.sockets[0].close(code, reason)
        await chat.until(lambda: chat.status == "closed")
        (error,) = chat.errors
        assert (error.kind, error.stage) == ("ws_close", "disconnect")
        assert error.details == {"code": code, "reason": reason}
        assert not chat.is_streaming
        assert chat.statuses == ["connecting", "connected", "closed"]
        assert [each for each in chat.seen if each.startswith("ws.")] == ["ws.open", "ws.close"]


@pytest.mark.states("chat-state/producers/socket-closed", "chat-state/producers/socket-closed/details")
async def test_a_socket_that_ends_without_a_goodbye() -> None:
    async with rig() as chat:
        await chat.manager.connect(CONV)
        chat.server.sockets[0].end()
        await chat.until(lambda: chat.status == "closed")
        (error,) = chat.errors
        assert (error.kind, error.stage) == ("ws_close", "disconnect")
        assert error.details == {"code": 1006, "reason": ""}


@pytest.mark.states("chat-state/producers/socket-closed/expected")
async def test_a_socket_that_this_client_closes_is_no_error() -> None:
    async with rig() as chat:
        await chat.manager.connect(CONV)
        await chat.manager.aclose()
        assert (chat.errors, chat.status) == ((), "closed")


@pytest.mark.states(
    "chat-state/producers/snapshot-not-2xx",
    "chat-state/manager/connect",
    "seed-2/producers/hydrate-not-ok",
    "seed-2/problem/metadata/http-status",
)
async def test_a_snapshot_that_is_refused() -> None:
    """chat-state: "snapshot request not 2xx | `http_error` | `hydrate` | `status`"."""
    async with rig() as chat:
        chat.server.refuse("/api/timeline", 503, " busy ", [("x-error-code", "CAPACITY_EXCEEDED")])
        await chat.manager.connect(CONV)
        (error,) = chat.errors
        assert (error.kind, error.stage, error.status) == ("http_error", "hydrate", 503)
        assert (error.message, error.code, error.recoverable) == ("busy", "CAPACITY_EXCEEDED", True)
        assert chat.status == "connected"
        assert "hydrate.fetch.failed" in chat.seen


@pytest.mark.states("chat-state/producers/snapshot-nonsense", "sem-chat/phases/hydrate.fetch.error")
@pytest.mark.parametrize(
    "body",
    [
        "no json",
        "[]",
        '"x"',
        '{"entities": 5}',
        '{"version": 1.5}',
        "[" * 100_000,
        '{"version": "99999999999999999999"}',
    ],
    ids=["text", "list", "string", "entities", "version", "deep", "large"],
)
async def test_a_snapshot_that_makes_no_sense(body: str) -> None:
    """chat-state: "snapshot request failed, or its body made no sense | `hydrate_error` | `hydrate`"."""
    async with rig() as chat:
        chat.server.refuse("/api/timeline", 200, body)
        await chat.manager.connect(CONV)
        (error,) = chat.errors
        assert (error.kind, error.stage, error.status) == ("hydrate_error", "hydrate", None)
        assert chat.status == "connected"
        assert "hydrate.fetch.error" in chat.seen


@pytest.mark.states("sem-chat/entity/reader-skips", "sem-chat/entity/reader-records")
async def test_bad_entities_of_a_snapshot_are_left_out_and_recorded() -> None:
    """sem-chat: "our reader skips the bad entity (no `id`, no `kind`, wrong types) and records it"."""
    good = '{"id": "m", "kind": "message", "props": {"role": "assistant", "content": "Hi."}}'
    async with rig() as chat:
        chat.server.refuse(
            "/api/timeline", 200, f'{{"version": 1, "entities": [{{"kind": "x"}}, {good}, 5]}}'
        )
        await chat.manager.connect(CONV)
        assert chat.texts == ["Hi."]
        (error,) = chat.errors
        assert (error.kind, error.stage) == ("hydrate_error", "hydrate")
        assert (error.details or {})["refused"] == 2


@pytest.mark.states(
    "chat-state/producers/undecodable-frame",
    "chat-state/producers/undecodable-frame/details",
    "sem-chat/frame/not-json",
    "sem-chat/frame/socket-stays",
    "seed-2/producers/malformed-frame",
)
@pytest.mark.parametrize(
    ("frame", "shown"),
    [
        ("no json", "no json"),
        ("", ""),
        ("[" * 100_000, "[" * 200),
        ("x" * 1_000_000, "x" * 200),
        (b"\x00\xffbinary", "\\x00\\xffbinary"),
        ('{"sem": true, "event": {"type": "llm.delta", "id": "a", "data": 5}}', None),
        ('{"sem": true, "event": {"type": "timeline.upsert", "id": "a", "data": {"entity": {}}}}', None),
    ],
    ids=["text", "empty", "deep", "long", "binary", "wrong data", "wrong entity"],
)
async def test_a_frame_that_cannot_be_decoded(frame: Any, shown: str | None) -> None:
    """chat-state: "frame not decodable | `sem_decode_error` | `stream` | the frame's first characters"."""
    async with rig() as chat:
        await chat.manager.connect(CONV)
        (socket,) = chat.server.sockets
        socket.send(frame)
        socket.send(upsert("after", "after", 1))
        await chat.until(lambda: chat.texts == ["after"])
        (error,) = chat.errors
        assert (error.kind, error.stage) == ("sem_decode_error", "stream")
        details = error.details or {}
        assert details["reason"]
        assert details["frame"].replace("\ufffd", "") == (frame if shown is None else shown)
        assert chat.status == "connected"


@pytest.mark.states("sem-chat/frame/not-a-frame", "sem-chat/event/other")
async def test_json_that_is_no_frame_is_ignored() -> None:
    """sem-chat: "JSON that is not such a frame is ignored"."""
    async with rig() as chat:
        await chat.manager.connect(CONV)
        (socket,) = chat.server.sockets
        for frame in (
            "5",
            "null",
            "[]",
            '{"sem": false, "event": {"type": "log", "id": "1"}}',
            '{"event": 5}',
        ):
            socket.send(frame)
        socket.send({"sem": True, "event": {"type": "never.heard.of", "id": "1", "data": [1]}})
        socket.send(upsert("after", "after", 1))
        await chat.until(lambda: chat.texts == ["after"])
        assert chat.errors == ()


@pytest.mark.states("chat-state/producers/connect-failed", "seed-2/producers/connect-failure")
async def test_a_connect_that_fails_before_there_is_a_socket() -> None:
    """chat-state: "connect failed | `runtime_error` | `connect`"."""

    async def headers() -> dict[str, str]:
        raise LookupError("no token")

    async with rig(headers=headers) as chat:
        await chat.manager.connect(CONV)
        (error,) = chat.errors
        assert (error.kind, error.stage) == ("runtime_error", "connect")
        assert error.message == "the connection could not be made: LookupError: no token"
        assert chat.statuses == ["connecting", "error", "closed"]
        assert chat.server.accepted == 0


@pytest.mark.states(
    "chat-state/producers/session-error",
    "chat-state/producers/session-error/code",
    "chat-state/producers/session-error/recoverable",
    "chat-state/producers/session-error/details",
    "sem-chat/event/session-error",
)
async def test_a_session_error_frame() -> None:
    """chat-state: "`session.error` frame | `runtime_error` | by code | `code` is the session error code"."""
    envelope = {
        "type": "session_error",
        "code": "AGENT_HANDLER_FAILED",
        "message": "Sorry, something went wrong.",
        "session_id": "s-1",
        "recoverable": False,
        "occurred_at": "2026-06-19T12:00:00.000Z",
    }
    async with rig() as chat:
        await chat.manager.connect(CONV)
        chat.server.frame(CONV, "session.error", "err-1", envelope)
        await chat.until(lambda: chat.errors)
        (error,) = chat.errors
        assert (error.id, error.kind, error.stage) == ("err-1", "runtime_error", "stream")
        assert (error.code, error.recoverable) == ("AGENT_HANDLER_FAILED", False)
        assert (error.details or {})["code"] == "AGENT_HANDLER_FAILED"
        assert chat.status == "connected"


@pytest.mark.states("seed-2/questions/duplicates")
async def test_the_same_failure_again_counts_up() -> None:
    """seed-2: "duplicate suppression window (same `kind+code+message` within N seconds)"."""
    async with rig() as chat:
        await chat.manager.connect(CONV)
        for _ in range(3):
            chat.server.sockets[0].send("no json")
        chat.server.sockets[0].send(upsert("after", "after", 1))
        await chat.until(lambda: chat.texts == ["after"])
        (error,) = chat.errors
        assert (error.details or {})["repeats"] == 2
