"""A conversation whose socket is lost is connected again, after a pause, until it is left."""

from __future__ import annotations

import pytest

from tests.integration.chat.chatting import CONV, Rig, delta, rig
from voicethere.chat import Reconnecting

RULE = Reconnecting(first=100.0, factor=2.0, longest=400.0, stable=10.0)


async def lose(chat: Rig) -> None:
    count = len(chat.server.sockets)
    (socket,) = chat.server.live(CONV)
    socket.reset()
    await chat.server.until(lambda: socket.closed.is_set())
    await chat.until(lambda: chat.status == "closed")
    assert len(chat.server.sockets) == count


def is_pause(seconds: float) -> bool:
    return seconds not in (0.75, 1.5)


@pytest.mark.states("sem-chat/connect/ours-reconnect")
async def test_a_lost_socket_is_opened_again_and_the_snapshot_fetched() -> None:
    """sem-chat: "foreign clients do not reconnect by themselves. Ours do."."""
    async with rig(reconnect=RULE) as chat:
        await chat.manager.connect(CONV)
        await lose(chat)
        chat.server.upsert(CONV, "m1", "message", {"role": "assistant", "content": "missed"})
        await chat.timers.fire(is_pause)
        await chat.until(lambda: chat.texts == ["missed"])
        assert chat.status == "connected"
        assert chat.kinds == ["ws_error/stream"]


@pytest.mark.states("sem-chat/text/lost-socket")
async def test_a_stream_that_was_cut_off_does_not_run_on() -> None:
    async with rig(reconnect=RULE) as chat:
        await chat.manager.connect(CONV)
        chat.server.sockets[0].send(delta("s1", "abc"))
        await chat.until(lambda: chat.is_streaming)
        await lose(chat)
        assert not chat.is_streaming


async def test_the_pauses_grow_to_the_longest_and_begin_anew_after_a_stable_connection() -> None:
    async with rig(reconnect=RULE) as chat:
        await chat.manager.connect(CONV)
        for _ in range(5):
            await lose(chat)
            await chat.timers.fire(is_pause)
            await chat.until(lambda: chat.status == "connected")
            await chat.server.until(lambda: chat.server.live(CONV))
        pauses = [seconds for seconds in chat.timers.asked if is_pause(seconds)]
        assert all(0 <= pause <= most for pause, most in zip(pauses, [100, 200, 400, 400, 400], strict=True))
        chat.clock.advance(10)
        await lose(chat)
        assert 0 <= await chat.timers.fire(is_pause) <= 100


async def test_a_server_that_is_away_is_tried_until_it_is_back() -> None:
    async with rig(reconnect=RULE) as chat:
        await chat.manager.connect(CONV)
        chat.server.on_accept(lambda wire: wire.reset())
        await lose(chat)
        for tries in range(2, 5):
            await chat.timers.fire(is_pause)
            await chat.until(lambda tries=tries: chat.seen.count("ws.error") == tries)
            await chat.until(lambda: chat.status == "closed")
        chat.server.on_accept(None)
        await chat.timers.fire(is_pause)
        await chat.until(lambda: chat.status == "connected")


@pytest.mark.parametrize("status", [401, 403, 404, 302])
async def test_a_server_that_will_not_have_it_is_not_asked_again_by_itself(status: int) -> None:
    async with rig(reconnect=RULE) as chat:
        chat.server.refuse(
            "/ws", status, "no such key", [("location", "/elsewhere")] if status == 302 else []
        )
        await chat.manager.connect(CONV)
        (error,) = chat.errors
        assert (error.kind, (error.details or {})["status"]) == ("ws_error", status)
        assert ("/elsewhere" if status == 302 else "no such key") in error.message
        assert chat.timers.running == []
        await chat.manager.reconnect(CONV)
        assert chat.status == "connected"


async def test_a_server_that_is_busy_is_asked_again() -> None:
    async with rig(reconnect=RULE) as chat:
        chat.server.refuse("/ws", 429)
        chat.server.refuse("/ws", 503)
        await chat.manager.connect(CONV)
        await chat.timers.fire(is_pause)
        await chat.timers.fire(is_pause)
        await chat.until(lambda: chat.status == "connected")


async def test_a_new_connect_ends_the_pause() -> None:
    async with rig(reconnect=RULE) as chat:
        await chat.manager.connect(CONV)
        await lose(chat)
        await chat.manager.connect(CONV)
        assert chat.status == "connected"
        assert chat.timers.running == []


async def test_without_reconnecting_a_lost_socket_stays_lost_until_somebody_connects() -> None:
    async with rig(reconnect=None) as chat:
        await chat.manager.connect(CONV)
        await lose(chat)
        assert chat.timers.running == []
        await chat.manager.connect(CONV)
        assert chat.status == "connected"


async def test_leaving_stops_the_tries() -> None:
    async with rig(reconnect=RULE) as chat:
        await chat.manager.connect(CONV)
        await lose(chat)
        await chat.manager.disconnect(CONV)
        await chat.timers.fire(lambda seconds: seconds == 0.75)
        await chat.timers.none_left()
        assert len(chat.server.sockets) == 1
        assert chat.seen[-1] == "disconnect"


async def test_an_explicit_reconnect_opens_the_socket_anew() -> None:
    async with rig(reconnect=RULE) as chat:
        await chat.manager.connect(CONV, profile="p")
        await chat.manager.reconnect(CONV)
        await chat.server.until(lambda: chat.server.sockets[0].closed.is_set())
        assert chat.server.live(CONV) == chat.server.sockets[1:]
        assert chat.server.sockets[1].query["profile"] == "p"
        assert (chat.status, chat.errors) == ("connected", ())
