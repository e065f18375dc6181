"""The demo's scenarios: each one is a real session, looked at from all three sides.

The client is the Python client over real WebRTC; its microphone plays synthesized speech; what it hears is
measured on the audio that arrived. The operator looks at the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from msgspec import UNSET

from voicethere.cli.demo.observing import expect, milliseconds, session_ended, since, stored_rows
from voicethere.cli.demo.phrases import CRASH_PHRASE
from voicethere.cli.demo.results import CrashSpeechHeard, ScenarioResult, Timings
from voicethere.cli.ears import STEP_SECONDS, DidNotHappen, Ears
from voicethere.client import (
    PcmQueue,
    Session,
    SessionErrorEnvelope,
    connect_session,
    start_session,
)
from voicethere.core.ports import Synthesizer
from voicethere.testing.platform_process import Deployed, Operator
from voicethere.wire.control_channel import SpeechEvent, SpeechEventType

SOUND = 0.01
"""The rms above which the demo calls a piece of audio sound."""
QUIET_SECONDS = 0.6
ERROR_MESSAGE = "Sorry, something went wrong. Please call again."
CUSTOMER_CONTEXT = {"userId": "u_123", "tier": "pro"}

Progress = Callable[[str], None]


class Stage:
    """What all scenarios share: the platform's address, the operator, a voice for the client."""

    def __init__(self, *, base_url: str, operator: Operator, voice: Synthesizer, progress: Progress) -> None:
        self.base_url = base_url
        self.operator = operator
        self.progress = progress
        self._voice = voice

    async def speech(self, text: str) -> bytes:
        """`text` as the client's microphone hears it, with a little silence around."""
        parts = [part async for part in self._voice.synthesize(text)]
        pause = bytes(2 * (self._voice.sample_rate * 3 // 10))
        return pause + b"".join(parts) + pause

    @contextlib.asynccontextmanager
    async def client(
        self, deployed: Deployed, ears: Ears, microphone: PcmQueue | None = None
    ) -> AsyncIterator[Session]:
        """A connected client."""
        started = await start_session(
            self.base_url,
            deployed.project_id,
            api_key=deployed.client_key,
            on_session_error=ears.on_error,
        )
        if started.credentials is None:
            raise DidNotHappen(f"the session could not be started: {started.code}: {started.message}")
        async with connect_session(
            started.credentials,
            customer_context=CUSTOMER_CONTEXT,
            on_session_error=ears.on_error,
            on_control_message=ears.on_message,
            on_speech_event=ears.on_speech_event,
            microphone=microphone,
            speaker=ears.sound if started.credentials.mode.has_audio else None,
        ) as session:
            yield session

    def microphone(self) -> PcmQueue:
        """A microphone at the voice's rate."""
        return PcmQueue(self._voice.sample_rate)


async def healthy_turn(stage: Stage, deployed: Deployed, phrase: str) -> ScenarioResult:
    """A phrase is spoken, recognized and answered by speech."""
    ears = Ears()
    microphone = stage.microphone()
    async with stage.client(deployed, ears, microphone) as session:
        stage.progress(f"saying “{phrase}”")
        microphone.say(await stage.speech(phrase))
        heard = await ears.until("recognition", ears.final)
        stage.progress(f"recognized “{heard}”")
        await ears.until("the agent's answer", lambda: _speech(ears, SpeechEventType.AGENT_SPEAKING_START))
        asked = time.monotonic()
        await ears.until("the end of the answer", lambda: _speech(ears, SpeechEventType.AGENT_SPEAKING_END))
        loudness = await _listen_out(ears, asked)
        if heard != phrase:
            raise DidNotHappen(f"“{phrase}” was recognized as “{heard}”")
        if loudness is None:
            raise DidNotHappen("the answer was not audible")
        answer = _speech(ears, SpeechEventType.AGENT_SPEAKING_START)
        session_id = session.session_id
        await session.close()
    if ears.errors:
        raise DidNotHappen(f"a healthy session reported {ears.errors[0][1].code}")
    stored = await stage.operator.errors(deployed.project_id, session_id)
    if stored:
        raise DidNotHappen(f"a healthy session has a stored error: {stored[0]['code']}")
    return ScenarioResult(
        name="healthy_turn",
        mode="voice",
        session_id=session_id,
        project_id=deployed.project_id,
        spoken=phrase,
        heard=heard,
        answer=answer.text if answer is not None else UNSET,
    )


async def handler_raises(stage: Stage, deployed: Deployed) -> ScenarioResult:
    """“please crash now” is spoken; the handler raises."""
    ears = Ears()
    microphone = stage.microphone()

    async def provoke(session: Session) -> float:
        stage.progress(f"saying “{CRASH_PHRASE}”")
        microphone.say(await stage.speech(CRASH_PHRASE))
        return since((await ears.until("the fault", lambda: ears.message("fault")))["at"])

    failed = await _failing(stage, deployed, ears, provoke, microphone)
    expect(ears.message("error_hook_ran") is not None, "error_hook did not run")
    heard = ears.final()
    return _failure(
        "handler_raises", "voice", deployed, failed, "AGENT_HANDLER_FAILED", spoken=CRASH_PHRASE, heard=heard
    )


async def child_killed(stage: Stage, deployed: Deployed) -> ScenarioResult:
    """The agent's process is killed in the middle of a session."""
    ears = Ears()

    async def provoke(session: Session) -> float:
        session.send({"type": "which_process"})
        process = await ears.until("the agent's process id", lambda: ears.message("process"))
        stage.progress(f"killing the agent's process {process['pid']}")
        moment = time.monotonic()
        os.kill(process["pid"], signal.SIGKILL)
        return moment

    failed = await _failing(stage, deployed, ears, provoke, stage.microphone())
    return _failure("child_killed", "voice", deployed, failed, "AGENT_CHILD_CRASHED")


async def text_turn_raises(stage: Stage, deployed: Deployed) -> ScenarioResult:
    """The same failure as `handler_raises`, from a chat message in a session without audio."""
    ears = Ears()

    async def provoke(session: Session) -> float:
        stage.progress(f"sending “{CRASH_PHRASE}”")
        session.send_chat(CRASH_PHRASE)
        return since((await ears.until("the fault", lambda: ears.message("fault")))["at"])

    failed = await _failing(stage, deployed, ears, provoke, None)
    expect(ears.message("error_hook_ran") is not None, "error_hook did not run")
    return _failure("text_turn_raises", "data", deployed, failed, "AGENT_HANDLER_FAILED")


# ------------------------------------------------------------------ a failing session


class _Failed(msgspec.Struct, frozen=True, kw_only=True):
    session_id: str
    events: list[SessionErrorEnvelope]
    crash_speech: CrashSpeechHeard | None
    stored: list[dict[str, Any]]
    timings: Timings


async def _failing(
    stage: Stage,
    deployed: Deployed,
    ears: Ears,
    provoke: Callable[[Session], Awaitable[float]],
    microphone: PcmQueue | None,
) -> _Failed:
    """Run a session into its failure; `provoke` gives the moment of the fault (`time.monotonic()`)."""
    async with stage.client(deployed, ears, microphone) as session:
        fault = await provoke(session)
        told_at, error = await ears.until("the client's session_error", lambda: next(iter(ears.errors), None))
        stage.progress(f"the client got {error.code}")
        storing = asyncio.create_task(stored_rows(stage.operator, deployed.project_id, session.session_id))
        try:
            crash_speech, audible_at = (
                (None, None) if microphone is None else await _crash_speech(ears, told_at)
            )
            async with asyncio.timeout(STEP_SECONDS):
                await session.closed
            stored, stored_at = await storing
        except TimeoutError:
            raise DidNotHappen("the platform did not end the session") from None
        finally:
            storing.cancel()
        session_id = session.session_id
    await session_ended(stage.operator, deployed.project_id, session_id)
    return _Failed(
        session_id=session_id,
        events=[envelope for _, envelope in ears.errors],
        crash_speech=crash_speech,
        stored=stored,
        timings=Timings(
            fault_to_client=milliseconds(told_at - fault),
            fault_to_audio=UNSET if audible_at is None else milliseconds(audible_at - fault),
            fault_to_stored=milliseconds(stored_at - fault),
        ),
    )


def _failure(
    name: str,
    mode: str,
    deployed: Deployed,
    failed: _Failed,
    code: str,
    *,
    spoken: str | None = None,
    heard: str | None = None,
) -> ScenarioResult:
    """The result, after a look at whether everything that must hold does."""
    codes = [event.code for event in failed.events]
    expect(codes == [code], f"the client got {codes}, not exactly one {code}")
    event = failed.events[0]
    expect(event.recoverable is False, "the error that ended the session calls itself recoverable")
    expect(event.message == ERROR_MESSAGE, f"the client was told {event.message!r}")
    expect(event.customer_context == CUSTOMER_CONTEXT, "the envelope lacks the customer's context")
    rows = [row["code"] for row in failed.stored]
    expect(rows == [code], f"the stored rows are {rows}, not exactly one {code}")
    expect(failed.stored[0]["customer_context"] == CUSTOMER_CONTEXT, "the row lacks the customer's context")
    everything = msgspec.json.encode([failed.events, failed.stored]).decode()
    expect("vth_demo_" not in everything, "a secret is in the envelope or in the row")
    if mode == "voice":
        expect(failed.crash_speech is not None, "the crash message was not heard")
    return ScenarioResult(
        name=name,
        mode=mode,
        session_id=failed.session_id,
        project_id=deployed.project_id,
        spoken=spoken if spoken is not None else UNSET,
        heard=heard if heard is not None else UNSET,
        client_events=failed.events,
        crash_speech=failed.crash_speech or UNSET,
        stored=failed.stored,
        timings_ms=failed.timings,
    )


async def _crash_speech(ears: Ears, told_at: float) -> tuple[CrashSpeechHeard, float]:
    await ears.until("the announcement of the crash message", lambda: _announced(ears, ERROR_MESSAGE))
    audible_at = await ears.until(
        "sound after the error", lambda: ears.sound.first_sound_since(told_at, threshold=SOUND)
    )
    loudness = await _listen_out(ears, told_at)
    if loudness is None:
        raise DidNotHappen("the crash message was announced, but nothing was heard")
    rms, seconds = loudness
    return CrashSpeechHeard(text=ERROR_MESSAGE, rms=rms, seconds=seconds), audible_at


def _announced(ears: Ears, text: str) -> bool | None:
    return any(m.get("type") == "agent_speak" and m.get("text") == text for m in ears.messages) or None


async def _listen_out(ears: Ears, since: float) -> tuple[float, float] | None:
    """`(rms, seconds)` of the sound since then, once it has been quiet for a while; None without sound."""
    before = -1.0
    for _ in range(int(STEP_SECONDS / QUIET_SECONDS)):
        await asyncio.sleep(QUIET_SECONDS)
        seconds = ears.sound.sound_seconds_since(since, threshold=SOUND)
        if seconds == before:
            break
        before = seconds
    if before <= 0:
        return None
    return round(ears.sound.rms_since(since), 4), round(before, 2)


def _speech(ears: Ears, kind: SpeechEventType) -> SpeechEvent | None:
    return next((event for event in ears.speech if event.event is kind), None)
