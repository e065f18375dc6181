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
from typing import Any, TypeVar

import msgspec
import tenacity
from msgspec import UNSET, UnsetType

from voicethere.cli.demo.phrases import CRASH_PHRASE
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
T = TypeVar("T")


class CrashSpeechHeard(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived after the error. `rms` (0 to 1) is of all of it, `seconds` counts what was sound."""

    text: str
    rms: float
    seconds: float


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from the fault until …"""

    fault_to_client: float
    fault_to_audio: float | UnsetType = UNSET
    fault_to_stored: float


class ScenarioResult(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario, as `voicethere demo --json` prints it."""

    name: str
    mode: str
    session_id: str
    project_id: str
    ok: bool = True
    spoken: str | UnsetType = UNSET
    heard: str | UnsetType = UNSET
    answer: str | UnsetType = UNSET
    client_events: list[SessionErrorEnvelope] = []
    crash_speech: CrashSpeechHeard | UnsetType = UNSET
    stored: list[dict[str, Any]] = []
    timings_ms: Timings | dict[str, float] = {}


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
        return _since((await ears.until("the fault", lambda: ears.message("fault")))["at"])

    failed = await _failing(stage, deployed, ears, provoke, microphone)
    _expect(ears.message("error_hook_ran") is not None, "error_hook did not run")
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
        return _since((await ears.until("the fault", lambda: ears.message("fault")))["at"])

    failed = await _failing(stage, deployed, ears, provoke, None)
    _expect(ears.message("error_hook_ran") is not None, "error_hook did not run")
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
        storing = asyncio.create_task(_stored(stage.operator, deployed.project_id, session.session_id))
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
    await _ended(stage.operator, deployed.project_id, session_id)
    return _Failed(
        session_id=session_id,
        events=[envelope for _, envelope in ears.errors],
        crash_speech=crash_speech,
        stored=stored,
        timings=Timings(
            fault_to_client=_ms(told_at - fault),
            fault_to_audio=UNSET if audible_at is None else _ms(audible_at - fault),
            fault_to_stored=_ms(stored_at - fault),
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
    _expect(codes == [code], f"the client got {codes}, not exactly one {code}")
    event = failed.events[0]
    _expect(event.recoverable is False, "the error that ended the session calls itself recoverable")
    _expect(event.message == ERROR_MESSAGE, f"the client was told {event.message!r}")
    _expect(event.customer_context == CUSTOMER_CONTEXT, "the envelope lacks the customer's context")
    rows = [row["code"] for row in failed.stored]
    _expect(rows == [code], f"the stored rows are {rows}, not exactly one {code}")
    _expect(failed.stored[0]["customer_context"] == CUSTOMER_CONTEXT, "the row lacks the customer's context")
    everything = msgspec.json.encode([failed.events, failed.stored]).decode()
    _expect("vth_demo_" not in everything, "a secret is in the envelope or in the row")
    if mode == "voice":
        _expect(failed.crash_speech is not None, "the crash message was not heard")
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


async def _stored(operator: Operator, project_id: str, session_id: str) -> tuple[list[dict[str, Any]], float]:
    """The session's rows as soon as the API shows any, and when that was."""
    rows = await _asked_until(
        "a stored error in the API", lambda: operator.errors(project_id, session_id), lambda rows: bool(rows)
    )
    return rows, time.monotonic()


async def _ended(operator: Operator, project_id: str, session_id: str) -> None:
    row = await _asked_until(
        "the session's end in the API",
        lambda: operator.session(project_id, session_id),
        lambda row: row["status"] != "active",
    )
    _expect(row["status"] == "failed", f"the session is recorded as {row['status']}, not as failed")


async def _asked_until(what: str, ask: Callable[[], Awaitable[T]], good: Callable[[T], bool]) -> T:
    """Ask again every few milliseconds until the answer is good."""
    asking = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_result(lambda answer: not good(answer)),
        wait=tenacity.wait_fixed(0.005),
        stop=tenacity.stop_after_delay(STEP_SECONDS),
    )

    async def once() -> T:
        return await ask()

    try:
        return await asking(once)
    except tenacity.RetryError:
        raise DidNotHappen(f"{what} did not appear within {STEP_SECONDS:g} s") from None


def _speech(ears: Ears, kind: SpeechEventType) -> SpeechEvent | None:
    return next((event for event in ears.speech if event.event is kind), None)


def _since(epoch: float) -> float:
    """A moment of the agent's wall clock on this process's monotonic clock: both are of one machine."""
    return time.monotonic() - (time.time() - epoch)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DidNotHappen(otherwise)
