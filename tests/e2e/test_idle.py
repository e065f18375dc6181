"""A session in which nothing happens for the shortest limit there is, in voice and in data, for real."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.e2e.waiting import errors_at_the_end, eventually
from tests.integration.gateway.talking import ChatApi, assert_numbered, of_type, says
from voicethere.client import BufferSink, PcmQueue, SessionErrorEnvelope, connect_session, start_session
from voicethere.testing.platform_process import Operator, RunningPlatform

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

LIMIT = 30
POLITE = b"""
from voicethere.agent import define_agent, send_to_client, speak

async def on_idle_timeout(ctx):
    send_to_client(ctx.session_id, {"type": "idle", "seconds": ctx.idle_timeout_seconds})
    await speak(ctx.session_id, "Good bye!")

async def on_data_channel_message(ctx):
    await speak(ctx.session_id, "You are there.")

define_agent(
    on_idle_timeout=on_idle_timeout, on_data_channel_message=on_data_channel_message, commands=["hello"]
)
"""


async def test_an_idle_session_ends_with_its_reason(platform: RunningPlatform, operator: Operator) -> None:
    await asyncio.gather(
        idle_chat(platform, operator), *(idle_away(platform, operator, mode) for mode in ("voice", "data"))
    )


async def idle_away(platform: RunningPlatform, operator: Operator, mode: str) -> None:
    deployed = await operator.deploy(
        POLITE,
        name=f"idle {mode}",
        mode=mode,
        session_settings={"idle_timeout_seconds": LIMIT, "data_only_idle_timeout_seconds": LIMIT},
    )
    started = await start_session(platform.base_url, deployed.project_id, api_key=deployed.client_key)
    assert started.credentials is not None, started
    errors: list[SessionErrorEnvelope] = []
    messages: list[object] = []
    speaker = BufferSink()
    audio = started.credentials.mode.has_audio
    begun = time.monotonic()  # not later: it may be idle for a while before we hear that we are connected
    async with connect_session(
        started.credentials,
        on_session_error=errors.append,
        on_control_message=messages.append,
        microphone=PcmQueue(16_000) if audio else None,
        speaker=speaker if audio else None,
    ) as session:
        async with asyncio.timeout(2 * LIMIT):
            await session.closed
        # Not before its time; how long after is a machine's, not a test's, to say.
        assert time.monotonic() - begun >= LIMIT
        session_id = session.session_id
    assert [(error.code, error.recoverable) for error in errors] == [("SESSION_IDLE_TIMEOUT", False)]
    assert {"type": "idle", "seconds": LIMIT} in messages
    if audio:
        assert speaker.sound_seconds_since() > 0.2  # it said good bye

    async def row() -> dict[str, object]:
        return await operator.session(deployed.project_id, session_id)

    ended = await eventually("the session's end", row, lambda shown: shown.get("end_reason") is not None)
    assert ended["end_reason"] == "idle_timeout"
    rows = await operator.errors(deployed.project_id, session_id)
    assert [row["code"] for row in rows] == ["SESSION_IDLE_TIMEOUT"]


async def idle_chat(platform: RunningPlatform, operator: Operator) -> None:
    """The conversation outlives its session: the next prompt begins another one, on the same socket."""
    deployed = await operator.deploy(
        POLITE,
        name="idle chat",
        mode="voice",
        session_settings={"idle_timeout_seconds": 120, "data_only_idle_timeout_seconds": LIMIT},
    )
    api = ChatApi(f"{platform.base_url}/c/{deployed.client_key}")
    try:
        talker = await api.listen("c")
        await api.accepted("c", "hello")
        answered = await talker.until(says("assistant", "You are there."))
        since = len(talker.events)
        begun = time.monotonic()  # not later: it is idle before its answer is heard here
        await api.accepted("c", "hello")
        await talker.until(says("assistant", "You are there."), since=since)
        await talker.until(says("assistant", "Good bye!"), patience=2 * LIMIT)
        assert time.monotonic() - begun >= LIMIT
        told = await talker.until(of_type("session.error"))
        assert (told["data"]["code"], told["data"]["recoverable"]) == ("SESSION_IDLE_TIMEOUT", False)
        since = len(talker.events)
        await api.accepted("c", "hello again")
        again = await talker.until(says("assistant", "You are there."), since=since)
        assert again["id"].rpartition("-")[0] != answered["id"].rpartition("-")[0]
        assert talker.close_code is None
        assert_numbered(talker.numbered)
        rows = await errors_at_the_end(operator, deployed.project_id, told["data"]["session_id"])
        assert [row["id"] for row in rows] == [told["id"]]
    finally:
        await api.aclose()
