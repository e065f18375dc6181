"""A client that loses its socket or its connection comes back to the same session, on a real platform."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from tests.e2e.agents import ECHO
from tests.e2e.waiting import PATIENCE, errors_at_the_end, eventually, eventually_true
from voicethere.adapters.speech.espeak import SAMPLE_RATE as ESPEAK_RATE
from voicethere.adapters.speech.espeak import EspeakSynthesizer
from voicethere.client import (
    BufferSink,
    Credentials,
    PcmQueue,
    Session,
    SessionErrorEnvelope,
    SessionState,
    connect_session,
    start_session,
)
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform, fresh_platform
from voicethere.testing.scripted_server import cut_wires

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

NEVER_IDLE = {"idle_timeout_enabled": False}
GRACE_SECONDS = 3
IMPATIENT = ("quiet_seconds=0.3", "answer_seconds=1.5", f"rejoin_seconds={GRACE_SECONDS}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[RunningPlatform]:
    async with fresh_platform([f"--runner-set={setting}" for setting in IMPATIENT]) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def data(operator: Operator) -> Deployed:
    return await operator.deploy(ECHO, name="data", mode="data", session_settings=NEVER_IDLE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def voice(operator: Operator) -> Deployed:
    settings = {**NEVER_IDLE, "error_message": "Sorry, something went wrong."}
    return await operator.deploy(ECHO, name="voice", mode="voice+data", session_settings=settings)


class Person:
    """A client, and all that it was told."""

    def __init__(self) -> None:
        self.errors: list[SessionErrorEnvelope] = []
        self.states: list[SessionState] = []
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.microphone = PcmQueue(ESPEAK_RATE)
        self.speaker = BufferSink()
        self.agent_pid = 0

    @contextlib.asynccontextmanager
    async def session(self, credentials: Credentials) -> AsyncIterator[Session]:
        async with connect_session(
            credentials,
            customer_context={"tier": "pro"},
            on_session_error=self.errors.append,
            on_control_message=self.messages.put_nowait,
            on_state_change=self.states.append,
            microphone=self.microphone,
            speaker=self.speaker,
            rejoin_delays=(0.2, 0.4, 0.8),
        ) as session:
            started = await self.hears("started")
            self.agent_pid = started["pid"]
            yield session

    @property
    def losses(self) -> int:
        """How often it was told that its connection is lost."""
        return self.states.count(SessionState.RECONNECTING)

    async def hears(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while (message := await self.messages.get()).get("type") != kind:
                pass
        return message

    async def chats(self, session: Session, text: str) -> None:
        session.send_chat(text)
        while (await self.hears("echo"))["text"] != text:
            pass


async def credentials_of(platform: RunningPlatform, deployed: Deployed) -> Credentials:
    started = await start_session(platform.base_url, deployed.project_id, api_key=deployed.client_key)
    assert started.credentials is not None, started
    return started.credentials


def drop_socket(session: Session) -> None:
    """The TCP connection of the signaling socket breaks."""
    session._link._socket._socket.transport.abort()  # type: ignore[union-attr]


async def break_peer(session: Session) -> None:
    """Nothing passes between client and runner any more, and the client's sockets are closed: it knows."""
    leg = session._link.leg
    assert leg is not None
    cut_wires(leg.peer)
    transport = leg.peer._dtls_transport()
    assert transport is not None
    await transport.transport._connection.close()


async def spoken(text: str) -> bytes:
    """`text` at the microphone's sample rate, and a second of silence."""
    synthesizer = EspeakSynthesizer()
    await synthesizer.open()
    try:
        parts = [part async for part in synthesizer.synthesize(text)]
    finally:
        await synthesizer.aclose()
    return b"".join(parts) + bytes(2 * synthesizer.sample_rate)


async def test_a_lost_signaling_socket_interrupts_nothing(
    platform: RunningPlatform, operator: Operator, voice: Deployed
) -> None:
    person = Person()
    credentials = await credentials_of(platform, voice)
    async with person.session(credentials) as session:
        first = session._link.leg
        drop_socket(session)
        await person.chats(session, "while the socket is gone")
        await eventually_true("a fresh connection", lambda: session._link.leg is not first)
        await eventually_true("the socket", lambda: session._link.in_room)
        for turn in range(20):
            await person.chats(session, f"turn {turn}")
        os.kill(person.agent_pid, 0)  # the same process as before
        await session.close()
    assert person.errors == []
    assert person.states == [SessionState.CONNECTED, SessionState.ENDED]
    row = await ended(operator, voice, credentials)
    assert row["end_reason"] == "client_close_signal"
    assert await operator.errors(voice.project_id, credentials.session_id) == []


async def test_a_broken_connection_is_made_again_and_chat_and_audio_go_on(
    platform: RunningPlatform, operator: Operator, voice: Deployed
) -> None:
    person = Person()
    hello = await spoken("hello")
    credentials = await credentials_of(platform, voice)
    async with person.session(credentials) as session:
        for losses in (1, 2):
            await break_peer(session)
            await eventually_true("the loss", lambda losses=losses: person.losses == losses)
            session.send_chat("held meanwhile")
            assert (await person.hears("echo"))["text"] == "held meanwhile"
            await eventually_true("the return", lambda: session.state is SessionState.CONNECTED)
            assert [(error.code, error.recoverable) for error in person.errors] == [
                ("WEBRTC_CONNECTION_CLOSED", True)
            ] * losses
            os.kill(person.agent_pid, 0)
            # The microphone goes on, and so does the recognizer that listens to it.
            person.microphone.say(hello)
            while (said := await person.hears("speech_event"))["event"] != "user_speech_final":
                pass
            assert said["text"] == "hello"
        # What the platform plays is heard on the new connection.
        os.kill(person.agent_pid, signal.SIGKILL)
        end = await asyncio.wait_for(session.closed, 20)
    assert end.reason == "AGENT_CHILD_CRASHED"
    assert person.speaker.sound_seconds_since() > 0.5
    assert person.states == [
        SessionState.CONNECTED,
        *[SessionState.RECONNECTING, SessionState.CONNECTED] * 2,
        SessionState.ENDED,
    ]
    rows = await errors_at_the_end(operator, voice.project_id, credentials.session_id)
    assert [(row["code"], row["customer_context"]) for row in rows] == [
        ("AGENT_CHILD_CRASHED", {"tier": "pro"})
    ]


async def test_what_happens_while_the_client_is_away_is_told_when_it_is_back(
    platform: RunningPlatform, operator: Operator, data: Deployed
) -> None:
    person = Person()
    credentials = await credentials_of(platform, data)
    async with person.session(credentials) as session:
        drop_socket(session)
        await break_peer(session)
        await eventually_true("the loss", lambda: person.losses == 1)
        os.kill(person.agent_pid, signal.SIGKILL)
        end = await asyncio.wait_for(session.closed, 20)
    assert end.reason == "AGENT_CHILD_CRASHED"
    assert [error.code for error in person.errors] == ["WEBRTC_CONNECTION_CLOSED", "AGENT_CHILD_CRASHED"]
    assert [error.recoverable for error in person.errors] == [True, False]
    rows = await errors_at_the_end(operator, data.project_id, credentials.session_id)
    assert [row["code"] for row in rows] == ["AGENT_CHILD_CRASHED"]


LONELY = """
import asyncio, sys
import msgspec
from voicethere.client import Credentials, connect_session

async def main() -> None:
    credentials = msgspec.json.decode(sys.stdin.buffer.read(), type=Credentials)
    async with connect_session(credentials, on_control_message=lambda m: print(m["pid"], flush=True)):
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_client_that_was_killed_is_waited_for_and_no_longer(
    platform: RunningPlatform, operator: Operator, data: Deployed
) -> None:
    credentials = await credentials_of(platform, data)
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LONELY, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(msgspec.json.encode(credentials))
    client.stdin.close()
    agent_pid = int(await asyncio.wait_for(client.stdout.readline(), PATIENCE))
    loop = asyncio.get_running_loop()
    killed_at = loop.time()  # not later: the grace may begin before we hear of its death
    client.kill()
    await client.wait()
    row = await ended(operator, data, credentials)
    # aiortc alone would notice after 32 s, and the grace only begins then.
    assert GRACE_SECONDS <= loop.time() - killed_at < 32
    assert row["end_reason"] == "client_disconnected"
    assert await operator.errors(data.project_id, credentials.session_id) == []
    with pytest.raises(ProcessLookupError):
        os.kill(agent_pid, 0)


async def test_a_session_that_is_over_is_not_rejoined(
    platform: RunningPlatform, operator: Operator, data: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = Person()
    credentials = await credentials_of(platform, data)
    async with person.session(credentials) as session:
        over = asyncio.Event()
        join = session._link.join

        async def join_too_late() -> None:
            await over.wait()
            await join()

        monkeypatch.setattr(session._link, "join", join_too_late)
        session._recovery._delays = (0.2, PATIENCE)  # a try may take until the next one
        drop_socket(session)
        await break_peer(session)
        row = await ended(operator, data, credentials)
        assert row["end_reason"] == "client_disconnected"
        over.set()
        end = await asyncio.wait_for(session.closed, 20)
    assert [(error.code, error.recoverable) for error in person.errors] == [
        ("WEBRTC_CONNECTION_CLOSED", True),
        ("WEBRTC_CONNECTION_CLOSED", False),
    ]
    assert "401" in person.errors[-1].message
    assert end.error is person.errors[-1]


async def ended(operator: Operator, deployed: Deployed, credentials: Credentials) -> dict[str, Any]:
    return await eventually(
        "the session's end",
        lambda: operator.session(deployed.project_id, credentials.session_id),
        lambda row: row["status"] == "ended",
    )
