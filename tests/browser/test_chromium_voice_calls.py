"""Voice sessions from a page: a command spoken into Chromium's microphone, and a page that has none."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.caller import SOUND, Caller, calling_page
from tests.browser.chromium import chromium
from tests.browser.spoken_wav import write_spoken_wav
from tests.e2e.waiting import eventually
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

COMMAND = "please crash now"
CRASH_MESSAGE = "Sorry, something went wrong. Please call again."
CRASH_SPEECH_MS = 2500
"""From the first to the last sound of it: a little less than the 3 s that it lasts."""
CONTEXT = {"userId": "u_123"}
BEFORE_SECONDS = 3.0
"""Silence before the command: by then the connection must be up, or the words are lost."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo_agent(operator: Operator) -> Deployed:
    bundle = resources.files("voicethere.cli.demo").joinpath("demo_agent.py").read_bytes()
    return await operator.deploy(
        bundle, name="demo", mode="voice", session_settings={"error_message": CRASH_MESSAGE}
    )


@pytest_asyncio.fixture(loop_scope="module")
async def speaking_browser(tmp_path: Path) -> AsyncIterator[Browser]:
    """Its microphone says the command once."""
    spoken = tmp_path / "command.wav"
    await write_spoken_wav(spoken, COMMAND, before=BEFORE_SECONDS, after=20.0)
    flags = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}%noloop",
    )
    async with chromium(flags) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def speaking_caller(
    speaking_browser: Browser, origin: str, platform: RunningPlatform
) -> AsyncIterator[Caller]:
    async with calling_page(speaking_browser, origin, platform) as ready:
        yield ready


@pytest_asyncio.fixture(loop_scope="module")
async def listening_caller(origin: str, platform: RunningPlatform) -> AsyncIterator[Caller]:
    """Without a microphone, and without permission to ask for one."""
    async with chromium() as browser, calling_page(browser, origin, platform) as ready:
        yield ready


async def test_a_spoken_command_that_crashes_the_agent_is_told_and_heard_in_the_page(
    speaking_caller: Caller, demo_agent: Deployed, operator: Operator
) -> None:
    caller = speaking_caller
    session_id = await caller.prepare(demo_agent, hello=CONTEXT, microphone=True)
    await caller.connect()
    assert _direction(await caller.event("answer")) == "sendrecv"

    final = await caller.message("speech_event", event="user_speech_final")
    assert final["text"] == COMMAND
    await caller.message("speech_event", event="user_speaking_start")
    await caller.message("speech_event", event="user_speaking_end")

    error = await caller.event("message", label="voice-control", message={"type": "session_error"})
    envelope = error["message"]
    assert envelope["code"] == "AGENT_HANDLER_FAILED"
    assert envelope["session_id"] == session_id
    assert envelope["message"] == CRASH_MESSAGE
    assert envelope["recoverable"] is False
    assert envelope["customer_context"] == CONTEXT
    assert "look_up_account" in envelope["stack"]
    assert "vth_demo_" not in str(envelope)

    await caller.message("agent_speak", text=CRASH_MESSAGE)
    heard_at = await caller.sound_after(error["at"])
    print(f"\nthe crash message is heard {heard_at - error['at']:.0f} ms after the page got the error")
    quiet = await caller.loudness(before=error["at"])
    assert len(quiet) > 10
    assert max(quiet) < SOUND, "there was sound before the error: what was heard need not be its message"

    closed = await caller.event("channel-closed", label="voice-control")
    measured = await caller.page.evaluate("() => call.loudness")
    loud = [at for at, rms in measured if error["at"] < at < closed["at"] and rms > SOUND]
    assert loud[-1] - loud[0] > CRASH_SPEECH_MS, "the crash message was cut off"

    (row,) = await eventually(
        "the stored row", lambda: operator.errors(demo_agent.project_id, session_id), lambda rows: bool(rows)
    )
    assert (row["code"], row["customer_context"]) == ("AGENT_HANDLER_FAILED", CONTEXT)


async def test_a_page_without_a_microphone_is_served_and_hears_the_agent(
    listening_caller: Caller, demo_agent: Deployed, operator: Operator
) -> None:
    caller = listening_caller
    session_id = await caller.prepare(demo_agent)
    await caller.connect()
    assert _direction(await caller.event("answer")) == "recvonly"

    asked_at = await caller.page.evaluate("() => performance.now()")
    await caller.chat("good morning")
    await caller.message("agent_speak", text="You said: good morning")
    await caller.sound_after(asked_at)
    assert max(await caller.loudness(before=asked_at), default=0.0) < SOUND
    await caller.message("speech_event", event="agent_speaking_end")

    await caller.send({"type": "session_close"})
    await caller.event("channel-closed", label="voice-control")
    session = await eventually(
        "the recorded end",
        lambda: operator.session(demo_agent.project_id, session_id),
        lambda session: session["status"] != "active",
    )
    assert (session["status"], session["end_reason"]) == ("ended", "client_close_signal")
    assert await operator.errors(demo_agent.project_id, session_id) == []


def _direction(answer: dict[str, str]) -> str:
    """How the page answered the audio's m-line."""
    audio = re.search(r"^m=audio.*?(?=^m=|\Z)", answer["sdp"], re.MULTILINE | re.DOTALL)
    assert audio is not None, answer["sdp"]
    direction = re.search(r"^a=(sendrecv|sendonly|recvonly|inactive)\r?$", audio[0], re.MULTILINE)
    assert direction is not None, audio[0]
    return direction[1]
