"""The signaling socket, line by line of signaling.md, over a real server with a scripted runner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from voicethere.roles.sessions.rooms import room_id_of
from voicethere.roles.sessions.settings import SessionServiceSettings, SignalingLimits
from voicethere.roles.sessions.signaling import JoinTokenFilter
from voicethere.testing.scripted_runner import ScriptedRunner
from voicethere.wire.relay import PeerJoinedRoom, PeerLeftRoom, SignalFromPeer, TokenIssued

from .conftest import Peer, Platform, eventually

RUNNER = "voice-agent-server"
RUNNER_IS_THERE = {"type": "peer-joined", "peerId": RUNNER}


class Call:
    """A hosted session and its runner."""

    def __init__(self, platform: Platform, runner: ScriptedRunner, credentials: dict[str, Any]) -> None:
        self.platform = platform
        self.runner = runner
        self.credentials = credentials
        self.session_id: str = credentials["session_id"]
        self.room: str = credentials["room_id"]

    async def peer(self, peer_id: str | None = "client-1", **options: Any) -> Peer:
        return await self.platform.peer(self.credentials, peer_id, **options)

    def ignored(self, reason: str) -> int:
        return self.platform.service.gateway.ignored.get(reason, 0)

    def answer(self, **changes: Any) -> dict[str, Any]:
        return {
            "type": "answer",
            "room": self.room,
            "peerId": "client-1",
            "targetPeerId": RUNNER,
            "sdp": {"type": "answer", "sdp": "v=0"},
        } | changes


@pytest.fixture
async def call(platform: Platform) -> Call:
    await platform.deploy()
    runner = await platform.runner()
    return Call(platform, runner, await platform.hosted(runner))


async def refused(call: Call, query: str) -> int:
    """The HTTP status with which an upgrade is refused."""
    with pytest.raises(InvalidStatus) as refusal:
        await connect(f"{call.credentials['signaling_url']}{query}")
    response = refusal.value.response
    body = msgspec.json.decode(response.body or b"")
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return response.status_code


# ---------------------------------------------------------------------- the token


async def test_without_a_good_token_there_is_no_upgrade(call: Call) -> None:
    token = call.credentials["join_token"]
    for query in (
        "",
        "?",
        "?token=",
        "?token=junk",
        f"?token={token}x",
        f"?token={token}&token={token}",
        "?token=%FF%00",
        "?" + "a=b&" * 30 + f"token={token}",
    ):
        assert await refused(call, query) == 401
    assert not [m for m in call.runner.received if isinstance(m, PeerJoinedRoom)]


async def test_a_token_of_a_session_that_is_not_hosted_is_refused(call: Call) -> None:
    tokens = call.platform.tokens
    for session_id, room_id in (
        ("no-such", room_id_of("no-such")),
        (call.session_id, "room-of-another"),
    ):
        assert await refused(call, f"?token={tokens.issue(session_id, room_id).token}") == 401


async def test_a_token_is_good_for_several_joins_until_it_expires(call: Call) -> None:
    for number in range(3):
        peer = await call.peer(f"client-{number}")
        await peer.hear()
    call.platform.clock.advance(600.0)
    assert await refused(call, f"?token={call.credentials['join_token']}") == 401
    # The sockets that are there stay, and a poll gives a new token.
    fresh = (await call.platform.poll(call.session_id))["credentials"]["join_token"]
    await (await call.peer("client-9", token=fresh)).hear()


async def test_the_runner_gets_a_fresh_token_to_pass_on(call: Call) -> None:
    call.platform.clock.advance(500.0)
    await call.runner.want_token(call.session_id)
    issued = await call.runner.heard(TokenIssued)
    assert issued.session_id == call.session_id
    assert issued.expires_at == "2026-06-19T12:18:20.000Z"
    call.platform.clock.advance(200.0)
    assert await refused(call, f"?token={call.credentials['join_token']}") == 401
    assert await (await call.peer(token=issued.token)).hear() == RUNNER_IS_THERE


async def test_another_runner_gets_no_token_and_reaches_no_peer(call: Call) -> None:
    peer = await call.peer()
    await peer.hear()
    other = await call.platform.runner("runner-2")
    await other.want_token(call.session_id)
    await other.signal(call.session_id, "client-1", '{"type": "evil"}')
    other.sessions.append(call.session_id)
    await other.close(call.session_id)
    await eventually(lambda: call.ignored("not_hosted") == 1)
    text = await call.runner.offer(call.session_id, call.room, "client-1")
    assert await peer.hear() == msgspec.json.decode(text)
    assert not [m for m in other.received if isinstance(m, TokenIssued)]


async def _use_the_token(call: Call) -> None:
    """All the ways in which a socket with a token in its address comes and goes."""
    token = call.credentials["join_token"]
    peer = await call.peer()
    await peer.hear()
    await refused(call, f"?token={token}x")
    with pytest.raises(InvalidStatus):
        await connect(f"ws://127.0.0.1:{call.platform.server.port}/elsewhere?token={token}")
    await peer.aclose()
    await call.runner.heard(PeerLeftRoom)


async def test_the_token_is_in_no_log(
    call: Call, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        await _use_the_token(call)
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("uvicorn")]
    assert any("token=[redacted]" in line for line in lines)
    token = call.credentials["join_token"]
    assert token[:40] not in "".join(lines) + "".join(capsys.readouterr())


async def test_the_token_is_in_no_debug_log_behind_the_filter(
    call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    server_log = logging.getLogger("uvicorn.error")
    keeping = JoinTokenFilter()
    server_log.addFilter(keeping)
    try:
        with caplog.at_level(logging.DEBUG):
            await _use_the_token(call)
    finally:
        server_log.removeFilter(keeping)
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("uvicorn")]
    assert any("GET /v1/signaling?token=[redacted]" in line for line in lines)
    assert call.credentials["join_token"][:40] not in "".join(lines)


# ---------------------------------------------------------------------- joining and leaving


async def test_a_client_that_joins_meets_the_runner_and_the_others(call: Call) -> None:
    first = await call.peer("client-1")
    assert await first.hear() == RUNNER_IS_THERE
    joined = await call.runner.heard(PeerJoinedRoom)
    assert (joined.session_id, joined.peer_id) == (call.session_id, "client-1")

    second = await call.peer("observer")
    assert await second.hear() == RUNNER_IS_THERE
    assert await second.hear() == {"type": "peer-joined", "peerId": "client-1"}
    assert await first.hear() == {"type": "peer-joined", "peerId": "observer"}
    assert (await call.runner.heard(PeerJoinedRoom, count=2)).peer_id == "observer"

    await second.aclose()
    assert await first.hear() == {"type": "peer-left", "peerId": "observer"}
    left = await call.runner.heard(PeerLeftRoom)
    assert (left.session_id, left.peer_id) == (call.session_id, "observer")


async def test_joining_again_replaces_the_earlier_socket(call: Call) -> None:
    observer = await call.peer("observer")
    await observer.hear()
    earlier = await call.peer("client-1")
    assert await observer.hear() == {"type": "peer-joined", "peerId": "client-1"}
    later = await call.peer("client-1")
    code, reason = await earlier.closed()
    assert code == 1000
    assert reason is not None
    assert "replaced" in reason
    assert await later.hear() == RUNNER_IS_THERE
    assert await observer.hear() == {"type": "peer-joined", "peerId": "client-1"}
    await call.runner.heard(PeerJoinedRoom, where=lambda m: m.peer_id == "client-1", count=2)

    # What the runner says now reaches the new socket, and nobody is told that the peer has left.
    text = await call.runner.offer(call.session_id, call.room, "client-1")
    assert await later.hear() == {"type": "peer-joined", "peerId": "observer"}
    assert await later.hear() == msgspec.json.decode(text)
    assert not [m for m in call.runner.received if isinstance(m, PeerLeftRoom)]
    await later.aclose()
    assert await observer.hear() == {"type": "peer-left", "peerId": "client-1"}


async def test_joining_again_on_the_same_socket_brings_a_fresh_offer(call: Call) -> None:
    peer = await call.peer()
    await peer.hear()
    await peer.join("client-1")
    assert await peer.hear() == RUNNER_IS_THERE
    await call.runner.heard(PeerJoinedRoom, count=2)


async def test_nobody_joins_as_the_runner_or_with_a_strange_id(call: Call) -> None:
    peer = await call.peer(None)
    for peer_id in (RUNNER, "", "x" * 129, "client-\n1"):
        await peer.join(peer_id)
    await eventually(lambda: call.ignored("peer_id") == 4)
    await peer.join("client-1")
    assert await peer.hear() == RUNNER_IS_THERE
    await peer.join("client-2")  # one socket is one peer
    await eventually(lambda: call.ignored("second_identity") == 1)
    assert [m.peer_id for m in call.runner.received if isinstance(m, PeerJoinedRoom)] == ["client-1"]


# ---------------------------------------------------------------------- forwarding


async def test_offers_answers_and_candidates_go_to_their_target_as_they_are(call: Call) -> None:
    peer = await call.peer()
    await peer.hear()
    offer = await call.runner.offer(call.session_id, call.room, "client-1", sdp="v=0 ☂")
    assert await peer.hear() == msgspec.json.decode(offer)

    odd = (
        f'{{"type":"answer", "room":"{call.room}","peerId":"client-1","targetPeerId":"{RUNNER}",'
        '"sdp":{"type":"answer","sdp":"v=0 \\u2602"},"somethingNew":[1]}'
    )
    await peer.send(odd)
    heard = await call.runner.heard(SignalFromPeer)
    assert (heard.session_id, heard.peer_id, heard.message) == (call.session_id, "client-1", odd)

    candidates: list[Any] = [
        {"candidate": "candidate:1 1 udp 1 10.0.0.1 5 typ host", "sdpMid": "0", "sdpMLineIndex": 0},
        {"candidate": "candidate:1 1 udp 1 abc.local 5 typ host", "sdpMid": None, "usernameFragment": "x"},
        {"candidate": ""},
        None,
    ]
    for number, candidate in enumerate(candidates, 2):
        await peer.send(call.answer(type="ice-candidate", candidate=candidate))
        heard = await call.runner.heard(SignalFromPeer, count=number)
        assert msgspec.json.decode(heard.message)["candidate"] == candidate


async def test_peers_of_a_room_reach_each_other(call: Call) -> None:
    first, second = await call.peer("client-1"), await call.peer("observer")
    await second.hear()
    await second.hear()
    message = call.answer(targetPeerId="observer")
    await first.send(message)
    assert await second.hear() == message
    assert not [m for m in call.runner.received if isinstance(m, SignalFromPeer)]


async def test_rooms_are_apart(call: Call) -> None:
    other = Call(call.platform, call.runner, await call.platform.hosted(call.runner))
    mine, theirs = await call.peer("client-1"), await other.peer("client-2")
    await mine.hear()
    await theirs.hear()
    await mine.send(call.answer(room=other.room))
    await mine.send(call.answer(targetPeerId="client-2"))
    stranger = await call.peer(None)
    stranger.room_id = other.room
    await stranger.join("client-3")
    await eventually(lambda: call.ignored("other_room") == 2 and call.ignored("no_such_target") == 1)
    await call.runner.offer(other.session_id, other.room, "client-2")
    assert (await theirs.hear())["type"] == "offer"


# ---------------------------------------------------------------------- junk


async def test_junk_is_ignored_and_counted_and_never_fatal(call: Call) -> None:
    peer = await call.peer(None)
    await peer.send(call.answer())  # before it has joined
    await eventually(lambda: call.ignored("before_join") == 1)
    await peer.join("client-1")
    await peer.hear()
    junk: list[tuple[Any, str]] = [
        ("", "malformed"),
        ("{", "malformed"),
        ("null", "malformed"),
        ("[]", "malformed"),
        ('{"type": 1}', "malformed"),
        ("[" * 5000, "malformed"),
        ('{"type": "join"}', "malformed"),
        (call.answer(sdp="v=0"), "malformed"),
        (call.answer(sdp={"type": "rollback", "sdp": ""}), "malformed"),
        (call.answer(type="ice-candidate", candidate=7), "malformed"),
        ('{"type": "dance"}', "unknown_type"),
        ('{"type": "peer-left", "peerId": "client-1"}', "not_for_the_gateway"),
        (call.answer(peerId="client-2"), "other_peer_id"),
        (call.answer(peerId=RUNNER, targetPeerId="client-1"), "other_peer_id"),
        (call.answer(targetPeerId="client-1"), "no_such_target"),
        (call.answer(targetPeerId="nobody"), "no_such_target"),
        (b"\x00\x01binary", "binary"),
    ]
    for message, reason in junk:
        before = call.ignored(reason)
        await peer.send(message)
        await eventually(lambda reason=reason, before=before: call.ignored(reason) == before + 1)  # type: ignore[misc]
    await peer.send(call.answer())
    assert (await call.runner.heard(SignalFromPeer)).message == msgspec.json.encode(call.answer()).decode()
    assert len([m for m in call.runner.received if isinstance(m, SignalFromPeer)]) == 1


async def test_a_socket_that_floods_is_closed_and_no_other(call: Call) -> None:
    quiet, loud = await call.peer("client-1"), await call.peer("client-2")
    with contextlib.suppress(ConnectionClosed):  # it may be closed while it still sends
        for _ in range(420):  # the clock stands still: past the burst there is nothing left
            await loud.send('{"type": "dance"}')
    assert (await loud.closed())[0] == 1008
    await call.runner.heard(PeerLeftRoom, where=lambda m: m.peer_id == "client-2")
    await quiet.send(call.answer())
    await call.runner.heard(SignalFromPeer)


async def test_a_huge_message_closes_its_socket(call: Call) -> None:
    for size, code in ((1024 * 1024 + 1, 1008), (5 * 1024 * 1024, 1009)):
        peer = await call.peer()
        await peer.hear()
        with contextlib.suppress(ConnectionClosed):  # it may be closed while it still sends
            await peer.send("x" * size)
        assert (await peer.closed())[0] == code


class TestSlowReaders:
    @pytest.fixture
    def service_settings(self) -> SessionServiceSettings:
        limits = SignalingLimits(outbox_bytes=2_000_000, sockets_per_room=2)
        return SessionServiceSettings(tick_seconds=3600.0, signaling=limits)

    async def test_a_peer_that_does_not_read_is_given_up_and_disturbs_nobody(self, call: Call) -> None:
        slow = await connect(
            f"{call.credentials['signaling_url']}?token={call.credentials['join_token']}", max_queue=1
        )
        await slow.send(f'{{"type":"join","room":"{call.room}","peerId":"client-slow"}}')
        await call.runner.heard(PeerJoinedRoom)
        room = call.platform.service._rooms.get(call.session_id)
        assert room is not None
        socket = room.peers["client-slow"]
        slow.transport.pause_reading()
        for _ in range(200):
            await call.runner.signal(call.session_id, "client-slow", "x" * 200_000)
            if socket.outbox.closing:
                break
        await eventually(lambda: socket.outbox.closing)
        quick = await call.peer("client-quick")
        assert await quick.hear() == RUNNER_IS_THERE
        slow.transport.abort()

    async def test_a_room_takes_so_many_sockets_and_no_more(self, call: Call) -> None:
        await (await call.peer("client-1")).hear()
        second = await call.peer("client-2")
        await second.hear()
        assert await refused(call, f"?token={call.credentials['join_token']}") == 429
        await second.aclose()
        await call.runner.heard(PeerLeftRoom)
        await (await call.peer("client-3")).hear()


# ---------------------------------------------------------------------- the end


async def test_after_the_end_sockets_are_closed_and_tokens_refused(call: Call) -> None:
    peer, silent = await call.peer(), await call.peer(None)
    await peer.hear()
    for number in range(50):
        await call.runner.signal(call.session_id, "client-1", f'{{"type": "last words", "n": {number}}}')
    await call.runner.close(call.session_id)
    assert [(await peer.hear())["n"] for _ in range(50)] == list(range(50))
    assert (await peer.closed())[0] == 1000
    assert (await silent.closed())[0] == 1000
    assert await refused(call, f"?token={call.credentials['join_token']}") == 401
    later = (await call.platform.poll(call.session_id)).get("credentials")
    assert later is None or await refused(call, f"?token={later['join_token']}") == 401


async def test_other_paths_are_no_sockets(call: Call) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await connect(f"ws://127.0.0.1:{call.platform.server.port}/v1/elsewhere")
    assert refusal.value.response.status_code == 404


async def test_the_gateway_pings_and_a_vanished_client_leaves(call: Call) -> None:
    """The server's own machinery: shown to be on, with intervals shortened so that it can be waited for."""
    from voicethere.roles.sessions.signaling import signaling_app, with_signaling

    from .conftest import Served

    async def no_http(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("only sockets here")

    app = with_signaling(no_http, signaling_app(call.platform.service.gateway))
    # Long enough for a pong of the client, which is in this process, while that is held up.
    server = Served(app, ws_ping_interval=0.05, ws_ping_timeout=1.0)
    await server.start()
    try:
        url = f"ws://127.0.0.1:{server.port}/v1/signaling?token={call.credentials['join_token']}"
        socket = await connect(url)
        await socket.send(f'{{"type":"join","room":"{call.room}","peerId":"client-gone"}}')
        await call.runner.heard(PeerJoinedRoom)
        socket.transport.pause_reading()  # as a frozen machine: the connection is there, nobody answers
        await call.runner.heard(PeerLeftRoom, where=lambda m: m.peer_id == "client-gone")
        socket.transport.abort()
        await asyncio.wait_for(socket.wait_closed(), 5)
    finally:
        await server.aclose()
