"""`connect_session` against a scripted platform: real sockets, real WebRTC, everything the contract asks."""

from __future__ import annotations

import asyncio
import logging
import math
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from voicethere.adapters.rtc.opus import SAMPLE_RATE, encode_speech
from voicethere.client import (
    BinaryMessage,
    BufferSink,
    ConnectError,
    Mode,
    PcmQueue,
    Session,
    SessionErrorEnvelope,
    SessionState,
    SpeechEvent,
    WavSink,
    WavSource,
    connect_session,
    recovery,
    start_session,
)
from voicethere.client.audio import rms
from voicethere.client.link import RunnerLink
from voicethere.testing.scripted_server import ScriptedPlatform, cut_wires


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - conditions of several kinds
            await asyncio.sleep(0.002)


def tone(seconds: float, rate: int, frequency: float = 440.0) -> bytes:
    count = int(seconds * rate)
    return struct.pack(
        f"<{count}h", *(int(12_000 * math.sin(2 * math.pi * frequency * n / rate)) for n in range(count))
    )


async def one_chunk(pcm: bytes) -> Any:
    yield pcm


def error_of(platform: ScriptedPlatform, **changes: Any) -> dict[str, Any]:
    return {
        "type": "session_error",
        "code": "AGENT_HANDLER_FAILED",
        "message": "Sorry, something went wrong.",
        "session_id": platform.session_id,
        "recoverable": False,
        "occurred_at": "2026-06-19T12:00:00.000Z",
    } | changes


async def test_the_whole_way_from_start_to_close() -> None:
    async with ScriptedPlatform() as platform:
        provision = await start_session(platform.api_base, "project", api_key="vthc_key", poll_interval=0.01)
        assert provision.ok
        assert provision.credentials is not None
        messages: list[Any] = []
        async with connect_session(
            provision.credentials, customer_context={"tier": "pro"}, on_control_message=messages.append
        ) as session:
            assert session.state is SessionState.CONNECTED
            session.send_chat("hello")
            session.send({"custom": [1, 2]})
            session.request_speech("say this")
            session.send_text("not json")
            await platform.runner.until(lambda runner: len(runner.control) == 5)
            platform.runner.send({"answer": 42})
            await until(lambda: messages == [{"answer": 42}])
            await session.close("done here")
            assert (await session.closed).reason == "client_close_signal"
        assert platform.runner.control == [
            {"type": "session_hello", "customer_context": {"tier": "pro"}},
            {"type": "chat", "text": "hello"},
            {"custom": [1, 2]},
            {"type": "speak", "text": "say this"},
            "not json",
            {"type": "session_close", "reason": "done here", "customer_context": {"tier": "pro"}},
        ]
        assert platform.signaled[0]["peerId"].startswith("client-")


async def test_no_hello_without_a_context_and_binary_both_ways() -> None:
    received: list[BinaryMessage] = []
    async with (
        ScriptedPlatform() as platform,
        connect_session(platform.credentials(), on_binary=received.append) as session,
    ):
        session.send_binary(b"\x00\x01", "control")
        session.send_binary(b"\x02" * 1000)
        await platform.runner.until(lambda runner: len(runner.events) >= 6)
        peer = platform.runner.peer
        assert peer is not None
        assert peer.send_binary(b"\x03", "control")
        assert peer.send_binary(b"\x04", "sync")
        await until(lambda: len(received) == 2)
        assert {(each.data, each.channel) for each in received} == {(b"\x03", "control"), (b"\x04", "sync")}
        assert not any(isinstance(each, dict) for each in platform.runner.control)


async def test_an_ending_error_is_told_once_and_nothing_after_it() -> None:
    errors: list[SessionErrorEnvelope] = []
    async with (
        ScriptedPlatform() as platform,
        connect_session(platform.credentials(), on_session_error=errors.append) as session,
    ):
        platform.runner.send(error_of(platform, code="IDLE_TIMEOUT_CALLBACK_FAILED", recoverable=True))
        platform.runner.send(error_of(platform, customer_context={"a": 1}, stack="Error: x"))
        platform.runner.send(error_of(platform, code="RUNNER_INTERNAL"))
        platform.runner.send({"type": "session_close", "reason": "agent_error"})
        peer = platform.runner.peer
        assert peer is not None
        assert await peer.flush(10)
        await peer.close()
        end = await session.closed
        assert [error.code for error in errors] == ["IDLE_TIMEOUT_CALLBACK_FAILED", "AGENT_HANDLER_FAILED"]
        assert errors[1].customer_context == {"a": 1}
        assert errors[1].stack == "Error: x"
        assert end.reason == "agent_error"
        assert end.error is errors[1]
        with pytest.raises(ConnectionError, match="session is over"):
            session.send_chat("too late")


async def test_a_large_error_arrives_whole_before_the_close() -> None:
    errors: list[SessionErrorEnvelope] = []
    async with (
        ScriptedPlatform() as platform,
        connect_session(platform.credentials(), on_session_error=errors.append) as session,
    ):
        platform.runner.send(error_of(platform, stack="s" * 55_000))
        peer = platform.runner.peer
        assert peer is not None
        assert await peer.flush(10)
        await peer.close()
        await session.closed
    assert errors[0].stack == "s" * 55_000


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ({"type": "session_close", "code": "idle_timeout"}, "SESSION_IDLE_TIMEOUT", "idle_timeout"),
        ({"type": "session_close", "reason": "agent_disconnected"}, None, "agent_disconnected"),
        (
            {"type": "session_close", "reason": "runner_shutdown"},
            "WEBRTC_CONNECTION_CLOSED",
            "runner_shutdown",
        ),
        (None, "WEBRTC_CONNECTION_CLOSED", "WEBRTC_CONNECTION_CLOSED"),
    ],
)
async def test_how_a_close_is_told(message: dict[str, Any] | None, code: str | None, reason: str) -> None:
    errors: list[SessionErrorEnvelope] = []
    async with (
        ScriptedPlatform() as platform,
        connect_session(platform.credentials(), on_session_error=errors.append, rejoin_delays=()) as session,
    ):
        peer = platform.runner.peer
        assert peer is not None
        if message is not None:
            platform.runner.send(message)
            assert await peer.flush(10)
        await peer.close()
        end = await session.closed
        assert [error.code for error in errors] == ([] if code is None else [code])
        assert end.reason == reason
        assert all(error.recoverable is False and error.session_id == platform.session_id for error in errors)


async def test_the_gateway_tells_when_the_runner_died() -> None:
    errors: list[SessionErrorEnvelope] = []
    async with (
        ScriptedPlatform() as platform,
        connect_session(platform.credentials(), on_session_error=errors.append) as session,
    ):
        assert platform.runner.peer is not None
        cut_wires(platform.runner.peer)
        await platform.signal(error_of(platform, code="RUNNER_INTERNAL"))
        await platform.signal({"type": "peer-left", "peerId": "voice-agent-server"})
        end = await asyncio.wait_for(session.closed, 20)
        assert [error.code for error in errors] == ["RUNNER_INTERNAL"]
        assert end.reason == "RUNNER_INTERNAL"


async def test_an_explanation_on_the_socket_that_comes_after_the_loss_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It comes a moment after the loss; on a machine that is held up that may be more than half a second.
    monkeypatch.setattr(recovery, "_EXPLANATION_GRACE_SECONDS", 20.0)
    errors: list[SessionErrorEnvelope] = []
    async with (
        ScriptedPlatform() as platform,
        connect_session(platform.credentials(), on_session_error=errors.append) as session,
    ):
        assert platform.runner.peer is not None
        await platform.runner.peer.close()
        await platform.signal(error_of(platform, code="RUNNER_INTERNAL"))
        await session.closed
        assert [error.code for error in errors] == ["RUNNER_INTERNAL"]


async def test_junk_from_runner_and_gateway_is_counted_and_harmless() -> None:
    problems: list[str] = []
    messages: list[Any] = []
    async with (
        ScriptedPlatform() as platform,
        connect_session(
            platform.credentials(), on_protocol_problem=problems.append, on_control_message=messages.append
        ) as session,
    ):
        for junk in ("", "{", "[" * 5000, '{"type": "session_error"}', '{"type":"session_reconnect_token"}'):
            platform.runner.send(junk)
        platform.runner.send('"text"')
        platform.runner.send({"type": "speech_event", "event": "no such event"})
        for raw in ("nonsense", b"bytes", {"type": "offer"}, {"type": "session_error"}, {"type": "what"}):
            await platform.signal(raw)
        await platform.signal(
            {
                "type": "offer",
                "room": platform.room_id,
                "peerId": "client-other",
                "targetPeerId": platform.signaled[0]["peerId"],
                "sdp": {"type": "offer", "sdp": "v=0"},
            }
        )
        platform.runner.send({"still": "alive"})
        await until(lambda: {"still": "alive"} in messages and session.protocol_problems == 12)
        assert session.state is SessionState.CONNECTED
        assert len(problems) == 12
        assert "text" in messages


async def test_callbacks_that_raise_or_are_async_do_not_break_the_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "voicethere.client")
    seen: list[Any] = []
    events: list[SpeechEvent] = []

    async def slow(message: Any) -> None:
        await asyncio.sleep(0)
        seen.append(message)
        if message == 1:
            raise RuntimeError("in the application")

    def broken(error: SessionErrorEnvelope) -> None:
        seen.append(error.code)
        raise RuntimeError("in the application")

    async with (
        ScriptedPlatform() as platform,
        connect_session(
            platform.credentials(),
            on_control_message=slow,
            on_session_error=broken,
            on_speech_event=events.append,
        ) as session,
    ):
        for number in (1, 2, 3):
            platform.runner.send(number)
        platform.runner.send(error_of(platform, code="A_NEW_CODE", recoverable=True))
        platform.runner.send({"type": "agent_error", "message": "boom"})
        platform.runner.send({"type": "speech_event", "event": "barge_in", "ts": "2026-06-19T12:00:00.000Z"})
        await until(lambda: len(seen) == 5 and len(events) == 1)
        assert [each for each in seen if isinstance(each, int)] == [1, 2, 3]
        assert [each for each in seen if isinstance(each, str)] == ["A_NEW_CODE", "AGENT_CHILD_CRASHED"]
        assert session.state is SessionState.CONNECTED


async def test_close_from_inside_an_async_callback() -> None:
    sessions: list[Session] = []
    finished = asyncio.Event()

    async def leave(message: Any) -> None:
        await sessions[0].close()
        finished.set()

    async with ScriptedPlatform() as platform:
        async with connect_session(platform.credentials(), on_control_message=leave) as session:
            sessions.append(session)
            platform.runner.send({"go": True})
            assert (await session.closed).reason == "client_close_signal"
        await asyncio.wait_for(finished.wait(), 20)


async def test_a_refused_token() -> None:
    errors: list[SessionErrorEnvelope] = []
    async with ScriptedPlatform() as platform:
        with pytest.raises(ConnectError, match="401") as raised:
            await connect_session(
                platform.credentials(join_token="secret-token"), on_session_error=errors.append
            )
    assert [error.code for error in errors] == ["WEBRTC_CONNECTION_FAILED"]
    assert raised.value.error is errors[0]
    assert "secret-token" not in str(raised.value)


async def test_a_gateway_out_of_reach_or_not_one() -> None:
    async with ScriptedPlatform() as platform:
        bad = {
            "ws://127.0.0.1:1/": "cannot be reached",
            "http//nothing": "not a ws:// or wss:// address",
            platform.api_base.replace("http", "ws"): "HTTP 404",
        }
        for url, words in bad.items():
            with pytest.raises(ConnectError, match=words):
                await connect_session(platform.credentials(signaling_url=url))


async def test_the_connect_timeout() -> None:
    for options in ({"offers": False}, {"answers_used": False}):
        errors: list[SessionErrorEnvelope] = []
        async with ScriptedPlatform(**options) as platform:
            with pytest.raises(ConnectError):
                await connect_session(
                    platform.credentials(), on_session_error=errors.append, connect_timeout=0.3
                )
        assert [(error.code, error.recoverable) for error in errors] == [("WEBRTC_CONNECT_TIMEOUT", True)]


async def test_an_error_before_the_connection_is_told_and_raised() -> None:
    errors: list[SessionErrorEnvelope] = []
    async with ScriptedPlatform(offers=False) as platform:
        connecting = asyncio.create_task(
            connect_session(platform.credentials(), on_session_error=errors.append).__aenter__()
        )
        await until(lambda: bool(platform.signaled))
        await platform.signal(error_of(platform, code="AGENT_CHILD_CRASHED"))
        await platform.close_signaling()
        with pytest.raises(ConnectError) as raised:
            await connecting
    assert [error.code for error in errors] == ["AGENT_CHILD_CRASHED"]
    assert raised.value.error is errors[0]


async def test_cancelling_while_connecting_leaves_nothing() -> None:
    errors: list[SessionErrorEnvelope] = []
    async with ScriptedPlatform(answers_used=False) as platform:
        connecting = asyncio.create_task(
            connect_session(platform.credentials(), on_session_error=errors.append).__aenter__()
        )
        await until(lambda: len(platform.signaled) == 2)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
    assert errors == []


async def test_a_mistake_of_the_clients_own_is_not_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(link: RunnerLink, socket: object, sdp: str) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(RunnerLink, "_answer", broken)
    errors: list[SessionErrorEnvelope] = []
    async with ScriptedPlatform() as platform:
        with pytest.raises(ConnectError, match="client itself failed"):
            await connect_session(platform.credentials(), on_session_error=errors.append)
    assert [error.code for error in errors] == ["WEBRTC_CONNECTION_FAILED"]


async def test_a_context_that_is_too_large_is_refused_before_anything_is_sent() -> None:
    async with ScriptedPlatform() as platform:
        deep: dict[str, Any] = {}
        for _ in range(8):
            deep = {"deeper": deep}
        for context, words in (
            ({"a": "x" * 9000}, "8,192"),
            (deep, "8 levels"),
            ({"a": object()}, "not JSON"),
        ):
            with pytest.raises(ValueError, match=words):
                connect_session(platform.credentials(), customer_context=context)
            with pytest.raises(ValueError, match=words):
                await start_session(platform.api_base, "p", api_key="k", customer_context=context)
        assert platform.requests == []
        assert platform.signaled == []


async def test_voice_both_ways(tmp_path: Path) -> None:
    microphone = PcmQueue(16_000)
    speaker = BufferSink()
    async with (
        ScriptedPlatform(mode=Mode.VOICE) as platform,
        connect_session(platform.credentials(), microphone=microphone, speaker=speaker),
    ):
        microphone.say(tone(0.4, 16_000))
        await platform.runner.until(lambda runner: loud_seconds(bytes(runner.heard)) > 0.3)
        peer = platform.runner.peer
        assert peer is not None
        assert peer.speech is not None
        moment = time.monotonic()
        assert speaker.rms_since() < 0.001
        playback = peer.speech.play(encode_speech(one_chunk(tone(0.4, 22_050)), 22_050))
        assert await playback.finished()
        assert await peer.speech.drained(10)
        await until(lambda: speaker.sound_seconds_since(moment) > 0.35)
        assert speaker.first_sound_since(moment) is not None
        assert speaker.sound_seconds_since(moment) < 0.5


async def test_a_wav_file_in_and_out(tmp_path: Path) -> None:
    spoken = tmp_path / "spoken.wav"
    sink = WavSink(spoken)
    sink.write(tone(0.2, 16_000), 16_000)
    sink.close()
    heard = tmp_path / "heard.wav"
    async with (
        ScriptedPlatform(mode=Mode.VOICE_DATA) as platform,
        connect_session(
            platform.credentials(), microphone=WavSource(spoken), speaker=WavSink(heard)
        ) as session,
    ):
        await platform.runner.until(lambda runner: loud_seconds(bytes(runner.heard)) > 0.15)
        session.send_chat("data too")
        await platform.runner.until(lambda runner: {"type": "chat", "text": "data too"} in runner.control)
    assert WavSource(heard).sample_rate == SAMPLE_RATE


async def test_only_listening() -> None:
    speaker = BufferSink()
    async with (
        ScriptedPlatform(mode=Mode.VOICE) as platform,
        connect_session(platform.credentials(), speaker=speaker, send_audio=False),
    ):
        assert "a=recvonly" in next(m["sdp"]["sdp"] for m in platform.signaled if m["type"] == "answer")
        peer = platform.runner.peer
        assert peer is not None
        assert peer.speech is not None
        peer.speech.play(encode_speech(one_chunk(tone(0.2, 48_000)), 48_000))
        await until(lambda: speaker.sound_seconds_since() > 0.15)


async def test_a_second_offer_on_the_socket_replaces_the_peer() -> None:
    messages: list[Any] = []
    async with (
        ScriptedPlatform() as platform,
        connect_session(
            platform.credentials(), customer_context={"n": 1}, on_control_message=messages.append
        ) as session,
    ):
        first = platform.runner.peer
        assert first is not None
        platform.runner.peer = None  # it vanished without a word
        await platform.offer()
        await platform.runner.connected()
        await platform.runner.until(
            lambda runner: runner.control.count({"type": "session_hello", "customer_context": {"n": 1}}) == 2
        )
        platform.runner.send("1")
        await until(lambda: messages == [1])
        assert session.state is SessionState.CONNECTED
        await first.close()


def loud_seconds(pcm: bytes, rate: int = 16_000) -> float:
    step = rate // 50 * 2
    parts = [pcm[start : start + step] for start in range(0, len(pcm), step)]
    return sum(0.02 for part in parts if rms(part) > 0.05)
