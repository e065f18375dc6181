"""A client that loses its socket or connection, against a scripted platform: real sockets, real WebRTC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.client.test_session_over_webrtc import error_of, loud_seconds, tone, until
from voicethere.client import (
    Mode,
    PcmQueue,
    Session,
    SessionErrorEnvelope,
    SessionState,
    connect_session,
)
from voicethere.testing.scripted_server import ScriptedPlatform

SOON = (0.1, 5.0)
BACK_AND_FORTH = [SessionState.CONNECTED, SessionState.RECONNECTING, SessionState.CONNECTED]


class Told:
    def __init__(self) -> None:
        self.errors: list[SessionErrorEnvelope] = []
        self.states: list[SessionState] = []
        self.messages: list[Any] = []

    @property
    def codes(self) -> list[tuple[str, bool]]:
        return [(error.code, error.recoverable is True) for error in self.errors]


@contextlib.asynccontextmanager
async def connected(platform: ScriptedPlatform, told: Told, **options: Any) -> AsyncIterator[Session]:
    async with connect_session(
        platform.credentials(),
        on_session_error=told.errors.append,
        on_state_change=told.states.append,
        on_control_message=told.messages.append,
        **({"rejoin_delays": SOON} | options),
    ) as session:
        yield session


def joins(platform: ScriptedPlatform) -> list[str]:
    return [message["peerId"] for message in platform.signaled if message["type"] == "join"]


async def runner_hangs_up(platform: ScriptedPlatform) -> None:
    assert platform.runner.peer is not None
    await platform.runner.peer.close()


async def test_a_lost_connection_is_made_again_with_all_that_belongs_to_the_session() -> None:
    told = Told()
    hello = {"type": "session_hello", "customer_context": {"n": 1}}
    async with (
        ScriptedPlatform() as platform,
        connected(platform, told, customer_context={"n": 1}) as session,
    ):
        platform.runner.send({"type": "session_reconnect_token", "token": "newer", "expiresAt": "2036"})
        platform.runner.send("1")
        await until(lambda: told.messages == [1])
        platform.token = "newer"  # the first one is not taken any more
        await runner_hangs_up(platform)
        await until(lambda: session.state is SessionState.RECONNECTING)
        session.send_chat("held")
        with pytest.raises(ConnectionError):
            session.send_binary(b"never held")
        await platform.runner.until(lambda runner: {"type": "chat", "text": "held"} in runner.control)
        await until(lambda: session.state is SessionState.CONNECTED)
        platform.runner.send("2")
        await until(lambda: told.messages == [1, 2])
        assert platform.runner.control == [hello, hello, {"type": "chat", "text": "held"}]
        assert len(joins(platform)) == 2
        assert len(set(joins(platform))) == 1
        assert told.codes == [("WEBRTC_CONNECTION_CLOSED", True)]
    assert told.states == [*BACK_AND_FORTH, SessionState.ENDED]


async def test_what_waits_for_the_return_is_bounded() -> None:
    told = Told()
    async with ScriptedPlatform() as platform, connected(platform, told, rejoin_delays=(60,)) as session:
        await runner_hangs_up(platform)
        await until(lambda: session.state is SessionState.RECONNECTING)
        for number in range(64):
            session.send(number)
        with pytest.raises(ConnectionError, match="64 messages wait"):
            session.send("one too many")


async def test_a_lost_socket_alone_is_nobodys_concern() -> None:
    told = Told()
    async with ScriptedPlatform() as platform, connected(platform, told) as session:
        first = platform.runner.peer
        assert first is not None
        platform.runner.peer = None  # as a real runner, it keeps the first until the new one is open
        await platform.close_signaling()
        assert first.send_control("1")
        await until(lambda: len(joins(platform)) == 2)
        await platform.runner.connected()
        await first.close()
        platform.runner.send("2")
        await until(lambda: told.messages == [1, 2])
        session.send_chat("on the new one")
        await platform.runner.until(
            lambda runner: {"type": "chat", "text": "on the new one"} in runner.control
        )
        assert told.errors == []
    assert told.states == [SessionState.CONNECTED, SessionState.ENDED]


async def test_a_refused_token_is_the_end_and_nothing_comes_after_it() -> None:
    told = Told()
    async with ScriptedPlatform() as platform, connected(platform, told) as session:
        platform.token = "the session is over"
        await runner_hangs_up(platform)
        end = await asyncio.wait_for(session.closed, 20)
        assert told.codes == [("WEBRTC_CONNECTION_CLOSED", True), ("WEBRTC_CONNECTION_CLOSED", False)]
        assert "401" in told.errors[1].message
        assert end.error is told.errors[1]
        assert len(joins(platform)) == 1


async def test_when_all_tries_failed_a_final_error_says_why() -> None:
    told = Told()
    delays = (0.01, 0.02, 0.03)
    async with ScriptedPlatform() as platform, connected(platform, told, rejoin_delays=delays) as session:
        assert platform._signaling is not None
        platform._signaling.close()
        await platform._signaling.wait_closed()
        await runner_hangs_up(platform)
        await asyncio.wait_for(session.closed, 20)
    assert told.codes == [("WEBRTC_CONNECTION_CLOSED", True), ("WEBRTC_CONNECTION_CLOSED", False)]
    assert "3 tries" in told.errors[1].message
    assert "cannot be reached" in told.errors[1].message
    assert told.states == [SessionState.CONNECTED, SessionState.RECONNECTING, SessionState.ENDED]


@pytest.mark.parametrize(
    "last_word",
    [{"type": "session_close", "reason": "agent_disconnected"}, {"type": "session_error"}, None],
)
async def test_nobody_comes_back_to_what_is_over(last_word: dict[str, Any] | None) -> None:
    told = Told()
    async with ScriptedPlatform() as platform, connected(platform, told) as session:
        if last_word is None:
            await session.close()
        else:
            platform.runner.send(error_of(platform) if "reason" not in last_word else last_word)
            assert platform.runner.peer is not None
            assert await platform.runner.peer.flush(10)
        await runner_hangs_up(platform)
        await asyncio.wait_for(session.closed, 20)
        assert len(joins(platform)) == 1
    assert told.states == [SessionState.CONNECTED, SessionState.ENDED]
    assert len(told.errors) == (1 if last_word == {"type": "session_error"} else 0)


async def test_the_gateway_can_end_a_session_that_waits_to_be_resumed() -> None:
    told = Told()
    async with ScriptedPlatform() as platform, connected(platform, told, rejoin_delays=(60,)) as session:
        await runner_hangs_up(platform)
        await until(lambda: bool(told.errors))
        await platform.signal(error_of(platform, code="RUNNER_INTERNAL"))
        end = await asyncio.wait_for(session.closed, 20)
    assert told.codes == [("WEBRTC_CONNECTION_CLOSED", True), ("RUNNER_INTERNAL", False)]
    assert end.reason == "RUNNER_INTERNAL"


async def test_closing_while_it_reconnects() -> None:
    told = Told()
    async with ScriptedPlatform() as platform, connected(platform, told, rejoin_delays=(60,)) as session:
        await runner_hangs_up(platform)
        await until(lambda: session.state is SessionState.RECONNECTING)
        await session.close()
        assert (await session.closed).reason == "client_close_signal"
    assert told.errors == []


async def test_the_microphone_goes_on_where_it_was() -> None:
    told = Told()
    microphone = PcmQueue(16_000)
    async with (
        ScriptedPlatform(mode=Mode.VOICE) as platform,
        connected(platform, told, microphone=microphone) as session,
    ):
        microphone.say(tone(0.3, 16_000))
        await platform.runner.until(lambda runner: loud_seconds(bytes(runner.heard)) > 0.2)
        await runner_hangs_up(platform)
        await until(lambda: session.state is SessionState.RECONNECTING)
        platform.runner.heard.clear()
        microphone.say(tone(0.4, 16_000))  # nobody hears it yet: it waits
        await platform.runner.until(lambda runner: loud_seconds(bytes(runner.heard)) > 0.3)
        microphone.say(tone(0.3, 16_000))
        await platform.runner.until(lambda runner: loud_seconds(bytes(runner.heard)) > 0.6)
    assert told.states[:3] == BACK_AND_FORTH
