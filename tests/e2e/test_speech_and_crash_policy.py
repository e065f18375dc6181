"""Interrupting an agent, and agents that crash or share a process, on a real platform with real audio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from tests.e2e.agents import ECHO
from tests.e2e.waiting import eventually, eventually_true
from voicethere.adapters.speech.espeak import EspeakSynthesizer
from voicethere.client import (
    BufferSink,
    PcmQueue,
    Session,
    SessionErrorEnvelope,
    connect_session,
    start_session,
)
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform
from voicethere.wire.control_channel import SpeechEvent

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

T = TypeVar("T")
EXAMPLES = Path(__file__).parents[2] / "examples"
BARISTA = (EXAMPLES / "barista_agent.py").read_bytes()
STORYTELLER = (EXAMPLES / "storyteller_agent.py").read_bytes()
NEVER_IDLE = {"idle_timeout_enabled": False, "error_message": "Sorry, that was me."}
PATIENCE = 30.0


class Caller:
    """One client, and all that it was told and heard."""

    def __init__(self, voice: EspeakSynthesizer) -> None:
        self.errors: list[SessionErrorEnvelope] = []
        self.messages: list[Any] = []
        self.speech: list[SpeechEvent] = []
        self.speaker = BufferSink()
        self.microphone = PcmQueue(voice.sample_rate)
        self._voice = voice
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def call(self, platform: RunningPlatform, deployed: Deployed) -> AsyncIterator[Session]:
        started = await start_session(platform.base_url, deployed.project_id, api_key=deployed.client_key)
        assert started.credentials is not None, started
        audio = started.credentials.mode.has_audio
        async with connect_session(
            started.credentials,
            customer_context={"name": "Ada"},
            on_session_error=lambda error: self._news(self.errors, error),
            on_control_message=lambda message: self._news(self.messages, message),
            on_speech_event=lambda event: self._news(self.speech, event),
            microphone=self.microphone if audio else None,
            speaker=self.speaker if audio else None,
        ) as session:
            yield session

    def _news(self, to: list[Any], item: Any) -> None:
        to.append(item)
        self._changed.set()

    async def say(self, text: str) -> None:
        pcm = b"".join([part async for part in self._voice.synthesize(text)])
        self.microphone.say(pcm + bytes(2 * self._voice.sample_rate // 5))

    async def until(self, what: str, look: Callable[[], T | None]) -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                while (found := look()) is None:
                    self._changed.clear()
                    await self._changed.wait()
                return found
        except TimeoutError:
            pytest.fail(f"{what} did not come: {self.events()}, {self.messages}")

    async def event(self, kind: str, text: str = "") -> SpeechEvent:
        return await self.until(
            f"{kind} {text}",
            lambda: next(
                (e for e in self.speech if e.event == kind and (e.text or "").startswith(text)), None
            ),
        )

    async def message(self, kind: str) -> Any:
        return await self.until(kind, lambda: next((m for m in self.messages if m["type"] == kind), None))

    async def error(self) -> SessionErrorEnvelope:
        return await self.until("an error", lambda: self.errors[0] if self.errors else None)

    def events(self) -> list[str]:
        return [event.event.value for event in self.speech]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def voice() -> AsyncIterator[EspeakSynthesizer]:
    synthesizer = EspeakSynthesizer()
    yield synthesizer
    await synthesizer.aclose()


async def deploy(operator: Operator, name: str, mode: str, **project_settings: object) -> Deployed:
    deployed = await operator.deploy(ECHO, name=name, mode=mode, session_settings=NEVER_IDLE)
    for key, value in project_settings.items():
        path = f"/projects/{deployed.project_id}/settings"
        await operator.ask("PATCH", path, json={"key": key, "value": value})
    await operator.ask("POST", "/deployments", json={"project_id": deployed.project_id})
    return deployed


async def stored(operator: Operator, deployed: Deployed, session_id: str) -> list[dict[str, Any]]:
    """The session's rows, once it has ended: then they are all there."""

    async def session() -> dict[str, Any]:
        return await operator.session(deployed.project_id, session_id)

    await eventually("the session's end", session, lambda row: row["end_reason"] is not None)
    return await operator.errors(deployed.project_id, session_id)


@pytest.mark.alone
async def test_a_caller_interrupts_the_barista(
    platform: RunningPlatform, operator: Operator, voice: EspeakSynthesizer
) -> None:
    deployed = await operator.deploy(BARISTA, name="barista", mode="voice+data", session_settings=NEVER_IDLE)
    caller = Caller(voice)
    async with caller.call(platform, deployed) as session:
        await caller.event("agent_speaking_end", "Hello Ada")
        await caller.say("what do you have")
        await caller.event("agent_speaking_start", "We have espresso")
        asked = len(caller.speech)
        await caller.say("one latte please")
        await caller.event("barge_in")
        # Cut off long before its end: the menu takes ten seconds.
        await caller.event("agent_speaking_end", "We have espresso")
        assert (await caller.message("menu"))["items"]["latte"] == 4.0
        assert (await caller.message("order"))["items"] == ["latte"]
        await caller.event("agent_speaking_start", "latte")
        heard = caller.events()[asked:]
        order = [
            "vad_triggered",
            "user_speaking_start",
            "barge_in",
            "agent_speaking_end",
            "user_speaking_end",
            "user_stt_end",
            "user_speech_final",
            "agent_speaking_start",
        ]
        assert [event for event in heard if event in order] == order
        assert caller.events().count("stt_stream_start") == 1
        await caller.event("user_speech_final", "one latte please")
        await session.close()
    assert caller.errors == []


@pytest.mark.alone
async def test_a_caller_interrupts_a_story_that_is_still_being_written_and_hears_one_break_off(
    platform: RunningPlatform, operator: Operator, voice: EspeakSynthesizer
) -> None:
    settings = {**NEVER_IDLE, "error_message": ""}
    deployed = await operator.deploy(
        STORYTELLER, name="storyteller", mode="voice+data", session_settings=settings
    )
    caller = Caller(voice)
    async with caller.call(platform, deployed) as session:
        await caller.event("agent_speaking_end", "Hello. Ask")
        asked_at = time.monotonic()
        await caller.say("tell me a story")
        await caller.event("agent_speaking_start", "Once upon a time there was a telephone.")
        await caller.event("agent_speaking_start", "It rang all day long")
        assert caller.speaker.sound_seconds_since(asked_at) > 1.0
        asked = len(caller.speech)
        await caller.say("how are you")
        await caller.event("barge_in")
        await caller.event("agent_speaking_end", "I have read a good book.")
        spoken = [event.text for event in caller.speech[asked:] if event.event == "agent_speaking_start"]
        assert "I am well, thank you." in spoken
        assert "That is the end of the story." not in spoken
        await caller.event("agent_speaking_end", "And you?")
        await caller.say("tell me a riddle")
        error = await caller.error()
        assert (error.code, error.recoverable) == ("AGENT_HANDLER_FAILED", False)
        # Said before it broke off.
        await caller.event("agent_speaking_start", "What has hands, but cannot clap?")
        session_id = session.session_id
        async with asyncio.timeout(PATIENCE):
            await session.closed
    (row,) = await stored(operator, deployed, session_id)
    assert (row["code"], row["details"]["hook"]) == ("AGENT_HANDLER_FAILED", "speak")
    assert 'raise ConnectionError("the model hung up' in row["stack_trace"]


async def test_a_crashed_agent_is_started_again_and_the_caller_hears_why(
    platform: RunningPlatform, operator: Operator, voice: EspeakSynthesizer
) -> None:
    deployed = await deploy(operator, "restart", "voice+data", agent_crash_policy="restart_child")
    caller = Caller(voice)
    async with caller.call(platform, deployed) as session:
        pid = (await caller.message("started"))["pid"]
        caller.messages.clear()
        killed_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        session.send_chat("are you there?")
        error = await caller.error()
        assert (error.code, error.recoverable) == ("AGENT_CHILD_CRASHED", True)
        again = await caller.message("started")
        assert again["pid"] != pid
        assert again["context"] == {"name": "Ada"}
        session.send_chat("hello")
        await caller.until(
            "the answer", lambda: next((m for m in caller.messages if m.get("text") == "hello"), None)
        )
        await eventually_true(
            "the crash message", lambda: caller.speaker.sound_seconds_since(killed_at) > 0.5
        )
        session_id = session.session_id
        await session.close()
    rows = await stored(operator, deployed, session_id)
    assert [(row["code"], row["recoverable"], row["details"]["crash_kind"]) for row in rows] == [
        ("AGENT_CHILD_CRASHED", True, "signal")
    ]
    assert [error.code for error in caller.errors] == ["AGENT_CHILD_CRASHED"]


async def test_sessions_that_share_a_child_share_its_crash_and_nothing_else(
    platform: RunningPlatform, operator: Operator, voice: EspeakSynthesizer
) -> None:
    deployed = await deploy(operator, "shared", "data", shared_child_per_session=True)
    callers = [Caller(voice) for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(caller.call(platform, deployed)) for caller in callers]
        pids = {(await caller.message("started"))["pid"] for caller in callers}
        assert len(pids) == 1
        sessions[0].send_chat("raise")
        assert (await callers[0].error()).code == "AGENT_HANDLER_FAILED"
        for caller, session in zip(callers[1:], sessions[1:], strict=True):
            session.send_chat("hello")
            await caller.message("echo")
            assert caller.errors == []
        os.kill(pids.pop(), signal.SIGKILL)
        for caller, session in zip(callers[1:], sessions[1:], strict=True):
            error = await caller.error()
            assert (error.code, error.recoverable) == ("AGENT_CHILD_CRASHED", False)
            async with asyncio.timeout(PATIENCE):
                await session.closed
    for session, code in zip(sessions, ["AGENT_HANDLER_FAILED"] + ["AGENT_CHILD_CRASHED"] * 2, strict=True):
        rows = await stored(operator, deployed, session.session_id)
        assert [row["code"] for row in rows] == [code]
