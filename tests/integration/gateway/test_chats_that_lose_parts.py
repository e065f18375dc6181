"""Chats of real agents while parts of the platform are lost or busy: a runner, the relay, room."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import httpx
import pytest

from tests.e2e.waiting import eventually
from tests.integration.gateway.talking import ChatApi, Talker, assert_numbered, of_type, says, upsert
from voicethere.testing.distributed import distributed_platform
from voicethere.testing.platform_process import Operator, fresh_platform

pytestmark = pytest.mark.timeout(180)

AGENT = b"""
import asyncio

from voicethere.agent import define_agent, disconnect_client, speak


async def in_parts():
    for number in range(60):
        yield f"part {number}, "
        await asyncio.sleep(0.05)


async def answer(ctx):
    text = ctx.message["text"]
    if text == "in parts":
        await speak(ctx.session_id, in_parts())
        return
    await speak(ctx.session_id, f"You said {text}.")
    if text.startswith("bye"):
        disconnect_client(ctx.session_id)


define_agent(on_data_channel_message=answer)
"""
ALL_PARTS = "".join(f"part {number}, " for number in range(60))


def streams(words: str) -> Any:
    return lambda event: words in str((event["data"] or {}).get("cumulative", ""))


def assert_nothing_streams(talker: Talker) -> None:
    """Every stream that began has ended, and so has every message."""
    running: set[str] = set()
    messages: dict[str, bool] = {}
    for event in talker.events:
        if event["type"] in ("llm.start", "llm.delta"):
            running.add(event["id"])
        elif event["type"] == "llm.final":
            running.discard(event["id"])
        elif (entity := upsert(event)) is not None and entity["kind"] == "message":
            messages[entity["id"]] = entity["props"]["streaming"]
    assert running == set()
    assert not any(messages.values())


@pytest.mark.states(
    "sem-chat/text/end-before-error", "sem-chat/gateway/error-id", "sem-chat/gateway/next-session"
)
async def test_a_runner_that_is_killed_mid_sentence_is_an_error_and_the_next_prompt_goes_on() -> None:
    async with fresh_platform() as platform, Operator(platform) as operator:
        deployed = await operator.deploy(AGENT, name="chatty", mode="data")
        api = ChatApi(f"{platform.base_url}/c/{deployed.client_key}")
        try:
            talker = await api.listen("c")
            await api.accepted("c", "in parts")
            await talker.until(streams("part 3,"))
            os.kill(platform.runner_pid, signal.SIGKILL)
            told = await talker.until(of_type("session.error"))
            assert (told["data"]["code"], told["data"]["recoverable"]) == ("RUNNER_INTERNAL", False)
            await talker.until(lambda event: (upsert(event) or {}).get("id") == told["id"])
            assert_nothing_streams(talker)
            row = await eventually(
                "its row", lambda: operator.errors(deployed.project_id, told["data"]["session_id"])
            )
            assert [found["id"] for found in row] == [told["id"]]
            kinds = [entity["kind"] for entity in (await api.timeline("c"))["entities"]]
            assert kinds == ["message", "message", "error"]
            await api.accepted("c", "hello")
            await talker.until(says("assistant", "You said hello."))
            assert_numbered(talker.numbered)
            assert talker.close_code is None
        finally:
            await api.aclose()


@pytest.mark.states("sem-chat/gateway/same-limits")
async def test_conversations_past_the_room_there_is_wait_and_are_answered_in_their_order() -> None:
    async with fresh_platform(["--capacity=2"]) as platform, Operator(platform) as operator:
        deployed = await operator.deploy(AGENT, name="chatty", mode="data")
        api = ChatApi(f"{platform.base_url}/c/{deployed.client_key}")
        try:
            hold = [await api.listen(f"held-{number}") for number in range(2)]
            for number, talker in enumerate(hold):
                await api.accepted(f"held-{number}", "hello")
                await talker.until(says("assistant", "You said hello."))
            names = [f"waits-{number}" for number in range(3)]
            talkers = [await api.listen(name) for name in names]
            for name in names:
                await api.accepted(name, f"bye {name}")
                await begun(operator, deployed.project_id, name)
            for name, talker in zip(names, talkers, strict=True):
                await talker.until(says("user", f"bye {name}"))
                assert [event["type"] for event in talker.events] == ["timeline.upsert"], "the user's own"
            await api.accepted("held-0", "bye")
            answers = [
                await talker.until(says("assistant", f"You said bye {name}."))
                for name, talker in zip(names, talkers, strict=True)
            ]
            times = [answer["data"]["entity"]["createdAtMs"] for answer in answers]
            assert times == sorted(times)
            await api.accepted("held-1", "still there?")
            await hold[1].until(says("assistant", "You said still there?."))
            for talker in (*hold, *talkers):
                assert not [event for event in talker.events if event["type"] == "session.error"]
        finally:
            await api.aclose()


async def begun(operator: Operator, project_id: str, conv_id: str) -> None:
    """Until the conversation has a session: the line is in the order of their beginning."""

    async def has_one() -> bool:
        rows = (await operator.ask("GET", f"/projects/{project_id}/sessions"))["sessions"]
        return any(row.get("conversation_id") == conv_id for row in rows)

    await eventually("its session begins", has_one)


@pytest.mark.states("sem-chat/gateway/seq")
async def test_a_redis_that_hangs_mid_sentence_delays_what_is_said_and_loses_nothing() -> None:
    async with (
        distributed_platform(
            sessions=1, gateways=1, workers=1, runners=1, settings={"sessions": {"no_chat": True}}
        ) as platform,
        Operator(platform.control_plane) as operator,
    ):
        deployed = await operator.deploy(AGENT, name="chatty", mode="data")
        (gateway,) = platform.gateways
        api = ChatApi(f"{gateway.said['base_url']}/c/{deployed.client_key}")
        try:
            talker = await api.listen("c")
            await api.accepted("c", "in parts")
            await talker.until(streams("part 3,"))
            platform.redis.pause()
            try:
                await eventually("the relay is missed", lambda: relay_missing(gateway.said["ops_url"]))
                accepted = asyncio.create_task(api.accepted("c", "meanwhile"))
                await talker.until(says("user", "meanwhile"))
            finally:
                platform.redis.resume()
            await accepted
            await talker.until(says("assistant", ALL_PARTS))
            await talker.until(says("assistant", "You said meanwhile."))
            assert_numbered(talker.numbered)
            assert_nothing_streams(talker)
            assert not [event for event in talker.events if event["type"] == "session.error"]
            texts = [entity["props"]["content"] for entity in (await api.timeline("c"))["entities"]]
            assert texts == ["in parts", ALL_PARTS, "meanwhile", "You said meanwhile."]
        finally:
            await api.aclose()


async def relay_missing(ops_url: str) -> bool:
    async with httpx.AsyncClient(timeout=10) as http:
        checks = (await http.get(ops_url + "/readyz")).json()["checks"]
    return bool(checks["relay"] != "ok")
