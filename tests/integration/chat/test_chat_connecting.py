"""A chat client connects: socket, snapshot, frames held back and replayed; reuse and abandonment."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode

from tests.integration.chat.certificates import self_signed
from tests.integration.chat.chatting import CONV, delta, rig, upsert
from voicethere.chat import ConversationManager, EventLog, SemRegistry, actions

WITHOUT_TROUBLE = [
    "connect.begin",
    "ws.open",
    "hydrate.start",
    "hydrate.snapshot.applied",
    "replay.begin",
    "replay.complete",
    "hydrate.complete",
]


@pytest.mark.states(
    "sem-chat/get-ws", "sem-chat/get-timeline", "sem-chat/version/snapshot", "chat-state/connection/statuses"
)
async def test_connecting_opens_the_socket_and_takes_the_snapshot() -> None:
    """sem-chat: "GET {base}/api/timeline … returns the snapshot"."""
    async with rig() as chat:
        chat.server.upsert(CONV, "m1", "message", {"role": "assistant", "content": "Hi."})
        await chat.manager.connect(CONV)
        assert chat.texts == ["Hi."]
        assert chat.entities["m1"].version == 1
        assert chat.statuses == ["connecting", "connected"]
        assert chat.errors == ()
        chat.server.upsert(CONV, "m2", "message", {"role": "assistant", "content": "And more."})
        await chat.until(lambda: chat.texts == ["Hi.", "And more."])


@pytest.mark.states(
    "sem-chat/phases/connect.begin",
    "sem-chat/phases/ws.open",
    "sem-chat/phases/hydrate.start",
    "sem-chat/phases/hydrate.snapshot.applied",
    "sem-chat/phases/replay.begin",
    "sem-chat/phases/replay.complete",
    "sem-chat/phases/hydrate.complete",
    "sem-chat/phases/ws.close",
    "sem-chat/phases/disconnect",
)
async def test_phases_of_a_conversation_without_trouble() -> None:
    """sem-chat: "Lifecycle phases … `disconnect` (always last)"."""
    async with rig() as chat:
        await chat.manager.connect(CONV)
        assert [each for each in chat.seen if each != "frame.buffered"] == WITHOUT_TROUBLE
        await chat.manager.disconnect(CONV)
        await chat.timers.fire(lambda seconds: seconds == 0.75)
        await chat.server.until(lambda: not chat.server.live(CONV))
        assert chat.seen[-2:] == ["ws.close", "disconnect"]
        assert chat.status == "closed"


@pytest.mark.states("sem-chat/connect/socket-first", "sem-chat/base/empty")
async def test_the_snapshot_is_not_fetched_before_the_socket_has_opened() -> None:
    """sem-chat: "the socket is opened first, then the snapshot is fetched — once the socket has opened"."""
    async with rig() as chat:
        opening = chat.server.hold("/ws")
        connecting = asyncio.create_task(chat.manager.connect(CONV))
        await chat.server.until(lambda: chat.server.paths() == ["/ws"])
        assert chat.timers.running == [1.5]
        opening.set()
        await connecting
        assert chat.server.paths() == ["/ws", "/api/timeline"]


@pytest.mark.states("sem-chat/connect/wait-over")
async def test_the_snapshot_is_fetched_without_a_socket_when_the_wait_is_over() -> None:
    """sem-chat: "… failed or 1.5 s have passed"."""
    async with rig() as chat:
        chat.server.upsert(CONV, "m1", "message", {"role": "assistant", "content": "Hi."})
        opening = chat.server.hold("/ws")
        connecting = asyncio.create_task(chat.manager.connect(CONV))
        await chat.timers.fire(lambda seconds: seconds == 1.5)
        await connecting
        assert (chat.texts, chat.status) == (["Hi."], "connecting")
        opening.set()
        await chat.until(lambda: chat.status == "connected")


@pytest.mark.states("sem-chat/connect/socket-failed")
async def test_the_snapshot_is_fetched_at_once_when_the_socket_has_failed() -> None:
    """sem-chat: "once the socket has opened, failed or …"."""
    async with rig() as chat:
        chat.server.upsert(CONV, "m1", "message", {"role": "assistant", "content": "Hi."})
        chat.server.refuse("/ws", 503, "not now")
        await chat.manager.connect(CONV)
        assert (chat.texts, chat.status) == (["Hi."], "closed")
        assert chat.kinds == ["ws_error/stream"]


@pytest.mark.states(
    "sem-chat/connect/buffer",
    "sem-chat/connect/replay-order",
    "sem-chat/connect/replay-once",
    "sem-chat/phases/frame.buffered",
)
async def test_frames_before_the_snapshot_are_replayed_by_seq_each_once() -> None:
    """sem-chat: "frames … before the snapshot is applied are buffered, then replayed in `seq` order"."""
    seen: list[str] = []
    sem = SemRegistry()
    sem.register("test.note", lambda context, event: seen.append(event.id))

    def note(name: str, seq: int | None) -> object:
        event = {"type": "test.note", "id": name}
        return {"sem": True, "event": event if seq is None else {**event, "seq": seq}}

    async with rig(sem=sem) as chat:
        snapshot = chat.server.hold("/api/timeline")
        connecting = asyncio.create_task(chat.manager.connect(CONV))
        await chat.server.until(lambda: "/api/timeline" in chat.server.paths())
        (socket,) = chat.server.sockets
        for frame in (note("third", 3), note("first", 1), note("loose", None), note("first again", 1)):
            socket.send(frame)
        socket.send(note("second", 2))
        logged = asyncio.Event()
        chat.log.subscribe(lambda entry: logged.set() if chat.seen.count("frame.buffered") == 5 else None)
        async with asyncio.timeout(10):
            await logged.wait()
        assert seen == []
        snapshot.set()
        await connecting
        assert seen == ["loose", "first", "second", "third"]
        socket.send(note("later", 1))
        socket.send(upsert("end", "end", 1))
        await chat.until(lambda: "end" in chat.texts)
        assert seen[-1] == "later"


@pytest.mark.states("sem-chat/connect/buffer")
async def test_a_buffer_that_is_full_holds_the_socket_up_and_loses_nothing() -> None:
    from voicethere.chat import ChatLimits

    async with rig(limits=ChatLimits(buffered_frames=3)) as chat:
        snapshot = chat.server.hold("/api/timeline")
        connecting = asyncio.create_task(chat.manager.connect(CONV))
        await chat.server.until(lambda: "/api/timeline" in chat.server.paths())
        for number in range(10):
            chat.server.sockets[0].send(upsert(f"m{number}", f"{number}", number + 1, seq=number))
        full = asyncio.Event()
        chat.log.subscribe(lambda entry: full.set() if chat.seen.count("frame.buffered") == 3 else None)
        async with asyncio.timeout(10):
            await full.wait()
        snapshot.set()
        await connecting
        await chat.until(lambda: chat.texts == [f"{number}" for number in range(10)])
        assert chat.seen.count("frame.buffered") == 3


@pytest.mark.states(
    "sem-chat/connect/failed-hydration-replay",
    "sem-chat/connect/failed-hydration-conversation",
    "sem-chat/get-timeline/fallback",
    "sem-chat/phases/hydrate.fetch.failed",
)
async def test_a_failed_snapshot_stops_neither_the_replay_nor_the_conversation() -> None:
    """sem-chat: "Hydration that fails does not stop the replay, nor the conversation"."""
    async with rig() as chat:
        chat.server.refuse("/api/timeline", 500)
        snapshot = chat.server.hold("/api/timeline")
        connecting = asyncio.create_task(chat.manager.connect(CONV))
        await chat.server.until(lambda: "/api/timeline" in chat.server.paths())
        chat.server.upsert(CONV, "m1", "message", {"role": "assistant", "content": "early"})
        buffered = asyncio.Event()
        chat.log.subscribe(lambda entry: buffered.set() if entry.type == "frame.buffered" else None)
        async with asyncio.timeout(10):
            await buffered.wait()
        snapshot.set()
        await connecting
        assert chat.texts == ["early"]
        (error,) = chat.errors
        assert (error.kind, error.status, error.message) == (
            "http_error",
            500,
            "timeline request failed (500)",
        )
        assert chat.seen[-4:] == [
            "hydrate.fetch.failed",
            "replay.begin",
            "replay.complete",
            "hydrate.complete",
        ]
        chat.server.upsert(CONV, "m2", "message", {"role": "assistant", "content": "late"})
        await chat.until(lambda: chat.texts == ["early", "late"])
        assert chat.status == "connected"


@pytest.mark.states("sem-chat/connect/reuse", "sem-chat/phases/connect.reuse")
async def test_a_second_connect_reuses_the_live_socket() -> None:
    """sem-chat: "A second connect for the same conversation and profile reuses the live socket"."""
    async with rig() as chat:
        await chat.manager.connect(CONV, profile="a")
        await chat.manager.connect(CONV, profile="a")
        assert chat.server.paths() == ["/ws", "/api/timeline"]
        assert chat.seen[-1] == "connect.reuse"


@pytest.mark.states("sem-chat/connect/reuse")
async def test_two_connects_at_once_share_one_socket() -> None:
    async with rig() as chat:
        await asyncio.gather(chat.manager.connect(CONV), chat.manager.connect(CONV))
        assert chat.server.paths() == ["/ws", "/api/timeline"]
        assert chat.seen.count("connect.reuse") == 1
        assert "disconnect" not in chat.seen


@pytest.mark.states("sem-chat/connect/profile")
async def test_another_profile_reconnects() -> None:
    """sem-chat: "a different profile reconnects"."""
    async with rig(registry="r") as chat:
        await chat.manager.connect(CONV, profile="a")
        await chat.manager.connect(CONV, profile="b")
        await chat.server.until(lambda: len(chat.server.live(CONV)) == 1)
        assert [socket.query for socket in chat.server.sockets] == [
            {"conv_id": CONV, "profile": "a", "registry": "r"},
            {"conv_id": CONV, "profile": "b", "registry": "r"},
        ]
        assert chat.server.live(CONV) == chat.server.sockets[1:]
        assert chat.seen[7:10] == ["ws.close", "disconnect", "connect.begin"]
        assert chat.errors == ()


@pytest.mark.states("sem-chat/connect/abandoned")
async def test_a_late_callback_of_an_abandoned_connection_changes_nothing() -> None:
    """sem-chat: "a late callback of an abandoned connection changes nothing"."""
    async with rig() as chat:
        chat.server.upsert(CONV, "m1", "message", {"role": "assistant", "content": "Hi."})
        opening, snapshot = chat.server.hold("/ws"), chat.server.hold("/api/timeline")
        first = asyncio.create_task(chat.manager.connect(CONV, profile="a"))
        await chat.timers.fire(lambda seconds: seconds == 1.5)
        await chat.server.until(lambda: "/api/timeline" in chat.server.paths())
        # The first connection waits for both answers when the second takes over.
        second = asyncio.create_task(chat.manager.connect(CONV, profile="b"))
        await chat.server.until(lambda: chat.server.paths().count("/ws") == 2)
        assert not first.done()
        opening.set()
        snapshot.set()
        await asyncio.gather(first, second)
        assert chat.seen.count("ws.open") == chat.seen.count("hydrate.snapshot.applied") == 1
        assert (chat.status, chat.errors) == ("connected", ())
        assert chat.seen[-1] == "hydrate.complete"


@pytest.mark.states("sem-chat/connect/abandoned")
async def test_frames_of_an_abandoned_socket_change_nothing() -> None:
    async with rig() as chat:
        await chat.manager.connect(CONV, profile="a")
        (old,) = chat.server.sockets
        # More than the client reads at once is on its way when it lets go.
        for number in range(500):
            old.send(upsert("m", f"{number}", number + 1))
        await chat.until(lambda: chat.texts)
        await chat.manager.connect(CONV, profile="b")
        chat.store.dispatch(actions.clear_conversation(CONV))
        late = json.dumps(upsert("late", "late", 501)).encode()
        old.write(Frame(Opcode.TEXT, late).serialize(mask=False))
        await chat.server.until(lambda: old.closed.is_set())
        assert (chat.texts, chat.status, chat.errors) == ([], "connected", ())


@pytest.mark.states("sem-chat/connect/wss")
async def test_an_https_base_uses_wss(tmp_path: Path) -> None:
    """sem-chat: "`https` bases use `wss`"."""
    server_ssl, client_ssl = self_signed(tmp_path)
    async with rig(server_ssl=server_ssl, ssl_context=client_ssl) as chat:
        assert chat.server.base_url.startswith("https:")
        await chat.manager.connect(CONV)
        await chat.manager.send(CONV, "hello")
        await chat.until(lambda: chat.texts == ["hello", "You said: hello"])
        assert chat.errors == ()


@pytest.mark.states(
    "sem-chat/base", "sem-chat/post-chat/profile-registry", "sem-chat/get-ws/profile-registry"
)
async def test_prefix_profile_registry_and_headers_go_with_every_request() -> None:
    """sem-chat: "Paths are relative to a base prefix that clients can configure"."""
    async with rig(
        base="/c/test/chat-api", profile="p", registry="r", headers={"Authorization": "Bearer k"}
    ) as chat:
        base_url = chat.server.base_url.removesuffix("/chat-api")
        manager = ConversationManager(
            chat.store,
            base_url,
            prefix="/chat-api/",
            profile="p",
            registry="r",
            headers={"Authorization": "Bearer k"},
            log=EventLog(),
        )
        async with manager:
            await manager.connect(CONV)
            await manager.send(CONV, "hello")
        assert chat.server.paths() == ["/ws", "/api/timeline", "/chat"]
        assert {request.headers.get("authorization") for request in chat.server.requests} == {"Bearer k"}
        assert chat.server.sockets[0].query == {"conv_id": CONV, "profile": "p", "registry": "r"}
        assert chat.server.prompts == [{"prompt": "hello", "conv_id": CONV, "profile": "p", "registry": "r"}]


async def test_a_conversation_id_is_escaped_in_addresses() -> None:
    async with rig() as chat:
        await chat.manager.connect("a b&profile=x#é/..")
        assert [socket.query for socket in chat.server.sockets] == [{"conv_id": "a b&profile=x#é/.."}]
        assert chat.server.requests[1].query == {"conv_id": "a b&profile=x#é/.."}


@pytest.mark.states("sem-chat/connect/latest-again")
async def test_entities_that_are_sent_again_without_seq_are_merged() -> None:
    """sem-chat: "the gateway sends the conversation's latest entities again when a socket opens"."""
    async with rig() as chat:
        chat.server.upsert(CONV, "m1", "message", {"role": "assistant", "content": "Hi."})
        chat.server.refuse("/api/timeline", 500)
        await chat.manager.connect(CONV)
        await chat.until(lambda: chat.texts == ["Hi."])


@pytest.mark.states("sem-chat/text/lost-socket")
async def test_streams_of_a_snapshot_that_came_without_a_socket_do_not_run_on() -> None:
    async with rig() as chat:
        chat.server.upsert(CONV, "m1", "message", {"role": "assistant", "content": "Hi", "streaming": True})
        chat.server.refuse("/ws", 503)
        await chat.manager.connect(CONV)
        assert chat.texts == ["Hi"]
        assert not chat.is_streaming


async def test_a_connect_that_is_cancelled_uses_the_conversation_no_more() -> None:
    async with rig() as chat:
        chat.server.hold("/ws")
        connecting = asyncio.create_task(chat.manager.connect(CONV))
        await chat.server.until(lambda: chat.server.paths() == ["/ws"])
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert chat.manager.active_conversation_ids() == ()
        await chat.timers.fire(lambda seconds: seconds == 0.75)
        await chat.until(lambda: chat.status == "closed")


async def test_a_stream_that_runs_shows_in_the_state() -> None:
    async with rig() as chat:
        await chat.manager.connect(CONV)
        chat.server.sockets[0].send(delta("s1", "abc"))
        await chat.until(lambda: chat.is_streaming)
        await chat.manager.disconnect(CONV)
        await chat.timers.fire(lambda seconds: seconds == 0.75)
        await chat.until(lambda: chat.status == "closed")
        assert not chat.is_streaming


async def test_arguments_that_are_none_are_refused_with_words() -> None:
    async with rig() as chat:
        with pytest.raises(ValueError, match="conv_id must have 1 to"):
            await chat.manager.connect("")
        with pytest.raises(ValueError, match="conv_id must be Unicode"):
            await chat.manager.connect("\ud800")
        with pytest.raises(TypeError, match="profile must be a string"):
            await chat.manager.connect(CONV, profile=5)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="is not connected"):
            await chat.manager.reconnect(CONV)
        assert chat.server.accepted == 0
    with pytest.raises(RuntimeError, match="closed"):
        await chat.manager.connect(CONV)
