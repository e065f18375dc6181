"""Chats with real agents in real processes: on one machine, through failures, over two gateways on Redis."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from click.testing import CliRunner
from websockets.exceptions import WebSocketException

from tests.e2e.waiting import eventually
from tests.integration.gateway.talking import (
    ChatApi,
    Talker,
    assert_numbered,
    assert_numbered_or_told_anew,
    of_type,
    says,
    upsert,
)
from voicethere.cli.main import cli
from voicethere.testing.distributed import distributed_platform
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform, fresh_platform
from voicethere.testing.roles_apart import roles_apart

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

AGENT = b"""
import asyncio
import os
import signal

from voicethere.agent import define_agent, send_to_client, speak

WORDS = [f"word {number}, " for number in range(40)]


async def slowly():
    for word in WORDS:
        yield word
        await asyncio.sleep(0.05)


async def half():
    yield "The first half. "
    raise ValueError("the second half is missing")


async def answer(ctx):
    text = ctx.message["text"]
    if text == "raise":
        raise RuntimeError("the kitchen is on fire")
    if text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "half":
        await speak(ctx.session_id, half())
    elif text == "slowly":
        await speak(ctx.session_id, slowly())
    elif text == "send":
        send_to_client(ctx.session_id, {"order": 7})
    elif text == "context":
        await speak(ctx.session_id, str(ctx.customer_context))
    else:
        await speak(ctx.session_id, f"You said {text}.")


define_agent(on_data_channel_message=answer)
"""
HANGS_UP = b"""
from voicethere.agent import define_agent, disconnect_client, speak

define_agent(
    on_session_start=lambda ctx: disconnect_client(ctx.session_id),
    on_data_channel_message=lambda ctx: speak(ctx.session_id, "nobody hears this"),
)
"""
SLOWLY = "".join(f"word {number}, " for number in range(40))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[RunningPlatform]:
    async with fresh_platform() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(platform: RunningPlatform) -> AsyncIterator[Operator]:
    async with Operator(platform) as working:
        yield working


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployed(operator: Operator) -> Deployed:
    return await operator.deploy(AGENT, name="chatty", mode="voice")


@pytest_asyncio.fixture(loop_scope="module")
async def api(platform: RunningPlatform, deployed: Deployed) -> AsyncIterator[ChatApi]:
    made = ChatApi(f"{platform.base_url}/c/{deployed.client_key}")
    yield made
    await made.aclose()


async def row_of(operator: Operator, project_id: str, error: dict[str, Any]) -> dict[str, Any]:
    """The stored error that a `session.error` frame told of."""

    async def ask() -> list[dict[str, Any]]:
        rows = await operator.errors(project_id, error["data"]["session_id"])
        return [row for row in rows if row["id"] == error["id"]]

    return (await eventually("the error is stored", ask))[0]


@pytest.mark.states(
    "sem-chat/gateway/session",
    "sem-chat/gateway/prompt",
    "sem-chat/gateway/speak",
    "sem-chat/gateway/speak-stream",
    "sem-chat/gateway/send-other",
    "sem-chat/gateway/sockets",
    "sem-chat/gateway/seq",
)
async def test_an_agent_answers_in_a_chat(api: ChatApi) -> None:
    """sem-chat: "a prompt is `on_data_channel_message` with `{"type": "chat", "text"}`"."""
    talker, other = await api.listen("answers"), await api.listen("answers")
    await api.accepted("answers", "hello", profile="waiter")
    await talker.until(says("assistant", "You said hello."))
    await api.accepted("answers", "context")
    await talker.until(says("assistant", "{'profile': 'waiter'}"))
    await api.accepted("answers", "send")
    told = await talker.until(of_type("agent.message"))
    assert told["data"] == {"order": 7}
    await api.accepted("answers", "slowly")
    await talker.until(says("assistant", SLOWLY))
    await other.until(says("assistant", SLOWLY))
    assert_numbered(talker.numbered)
    assert talker.numbered == other.numbered
    shown = await api.timeline("answers")
    assert [entity["props"]["role"] for entity in shown["entities"]] == ["user", "assistant"] * 2 + [
        "user",
        "user",
        "assistant",
    ]


@pytest.mark.states(
    "sem-chat/gateway/same-error-flow",
    "sem-chat/gateway/error-frame",
    "sem-chat/gateway/error-entity",
    "sem-chat/gateway/error-id",
    "sem-chat/gateway/next-session",
    "sem-chat/connect/not-closed-by-sessions",
)
@pytest.mark.parametrize(
    ("prompt", "code"),
    [("raise", "AGENT_HANDLER_FAILED"), ("half", "AGENT_HANDLER_FAILED"), ("die", "AGENT_CHILD_CRASHED")],
)
async def test_an_agent_that_fails_is_told_stored_and_shown_after_a_reload(
    api: ChatApi, operator: Operator, deployed: Deployed, prompt: str, code: str
) -> None:
    """sem-chat: "An error is a `session.error` frame and a `timeline.upsert` of kind `error`"."""
    conv_id = f"fails-{prompt}"
    talker = await api.listen(conv_id)
    await api.accepted(conv_id, prompt)
    told = await talker.until(of_type("session.error"))
    assert told["data"]["code"] == code
    assert (await row_of(operator, deployed.project_id, told))["code"] == code
    await talker.until(lambda event: (upsert(event) or {}).get("kind") == "error")
    shown = (await api.timeline(conv_id))["entities"]
    assert [entity["id"] for entity in shown if entity["kind"] == "error"] == [told["id"]]
    assert all(not entity["props"].get("streaming") for entity in shown)
    if prompt == "half":
        assert shown[1]["props"]["content"] == "The first half. "
    assert talker.close_code is None
    await api.accepted(conv_id, "hello")
    await talker.until(says("assistant", "You said hello."))
    assert_numbered(talker.numbered)


async def test_a_project_without_a_deploy_says_so(platform: RunningPlatform, operator: Operator) -> None:
    project = await operator.ask("POST", "/projects", json={"name": "empty"})
    issued = await operator.ask(
        "POST", "/api-keys", json={"name": "page", "kind": "client", "project_id": project["id"]}
    )
    api = ChatApi(f"{platform.base_url}/c/{issued['key']}")
    try:
        talker = await api.listen("c")
        await api.accepted("c", "hello")
        told = await talker.until(of_type("session.error"))
        assert told["data"]["code"] == "PROVISIONING_FAILED"
        row = await row_of(operator, project["id"], told)
        assert row["details"]["failure_code"] == "NOT_DEPLOYED"
        assert (await api.timeline("c"))["entities"][-1]["id"] == told["id"]
    finally:
        await api.aclose()


@pytest.mark.states("sem-chat/gateway/next-session")
async def test_a_session_that_is_ended_in_order_is_followed_by_the_next(
    api: ChatApi, operator: Operator, deployed: Deployed
) -> None:
    talker = await api.listen("forced")
    await api.accepted("forced", "hello")
    first = await talker.until(says("assistant", "You said hello."))
    changed = {"key": "error_message", "value": "Sorry."}
    await operator.ask("PATCH", f"/projects/{deployed.project_id}/session-settings", json=changed)
    await operator.ask("POST", "/deployments", json={"project_id": deployed.project_id, "mode": "force"})

    async def is_over() -> bool:
        session_id = first["id"].rpartition("-")[0]
        row = await operator.session(deployed.project_id, session_id)
        return bool(row["status"] == "ended")

    await eventually("the session is over", is_over)
    since = len(talker.events)
    await api.accepted("forced", "hello")
    again = await talker.until(says("assistant", "You said hello."), since=since)
    assert again["id"].rpartition("-")[0] != first["id"].rpartition("-")[0]
    assert not [event for event in talker.numbered if event["type"] == "session.error"]


async def test_no_log_holds_a_key(platform: RunningPlatform, api: ChatApi, deployed: Deployed) -> None:
    talker = await api.listen("logged")
    await api.accepted("logged", "hello")
    await talker.until(says("assistant", "You said hello."))
    text = (Path(platform.data_dir) / "logs" / "platform.log").read_text()
    assert "prompt_accepted" in text
    assert "/c/client-key/chat" in text
    assert deployed.client_key not in text


async def listened(api: ChatApi, conv_id: str) -> Talker:
    """A socket, once the gateway is there."""

    async def attempt() -> Talker | None:
        try:
            return await api.listen(conv_id)
        except (OSError, WebSocketException):
            return None

    found = await eventually("the gateway is back", attempt)
    assert found is not None
    return found


@pytest.mark.states("sem-chat/gateway/restart", "sem-chat/gateway/seq")
async def test_a_gateway_that_is_killed_mid_stream_and_started_again_loses_nothing() -> None:
    """sem-chat: a conversation survives a gateway restart."""
    async with roles_apart() as roles, Operator(roles.control_plane) as operator:
        deployed = await operator.deploy(AGENT, name="chatty", mode="data")
        api = ChatApi(f"{roles.session_service.base_url}/c/{deployed.client_key}")
        try:
            talker = await api.listen("c")
            await api.accepted("c", "slowly")
            await talker.until(lambda event: "word 3," in str(event["data"].get("cumulative")))
            await roles.sessions.end(signal.SIGKILL)
            before = talker.numbered
            await roles.sessions.start()
            back = await listened(api, "c")
            await back.until(says("assistant", SLOWLY))
            assert_numbered(before)
            shown = await api.timeline("c")
            assert [entity["props"]["content"] for entity in shown["entities"]] == ["slowly", SLOWLY]
            await api.accepted("c", "hello")
            await back.until(says("assistant", "You said hello."))
            reply = (await api.timeline("c"))["entities"][-1]
            assert reply["id"].rpartition("-")[0] == shown["entities"][1]["id"].rpartition("-")[0], (
                "the session lived on"
            )
            # By now there are some: all of the first reply may have been stored before the socket was open.
            assert_numbered(back.numbered)
            assert back.numbered[0]["seq"] > before[-1]["seq"]
        finally:
            await api.aclose()


@pytest.mark.states("sem-chat/gateway/sockets", "sem-chat/gateway/seq", "sem-chat/version/one-counter")
async def test_two_gateways_on_redis_tell_the_same() -> None:
    async with (
        distributed_platform(
            sessions=1, gateways=2, workers=1, runners=1, settings={"sessions": {"no_chat": True}}
        ) as platform,
        Operator(platform.control_plane) as operator,
    ):
        deployed = await operator.deploy(AGENT, name="chatty", mode="data")
        apis = [
            ChatApi(f"{gateway.said['base_url']}/c/{deployed.client_key}") for gateway in platform.gateways
        ]
        try:
            talkers = [await api.listen("c") for api in apis]
            for number in range(6):
                await apis[number % 2].accepted("c", f"hello {number}")
                for talker in talkers:
                    await talker.until(says("assistant", f"You said hello {number}."))
            for talker in talkers:
                assert_numbered(talker.numbered)
            assert talkers[0].numbered == talkers[1].numbered
            assert talkers[0].numbered[0]["seq"] == 1
            async with httpx.AsyncClient() as http:
                for gateway in platform.gateways:
                    report = (await http.get(gateway.said["ops_url"] + "/readyz")).json()
                    assert (report["ready"], set(report["checks"])) == (True, {"role", "database", "relay"})
                    metrics = (await http.get(gateway.said["ops_url"] + "/metrics")).text
                    assert "voicethere_chat_sockets 1.0" in metrics
                    assert "voicethere_chat_prompts_total 3.0" in metrics
                no_chat = await http.get(
                    f"{platform.sessions[0].said['base_url']}/c/{deployed.client_key}/api/timeline?conv_id=c"
                )
                assert no_chat.status_code == 404
            # The one that takes the prompt dies while its answer is being said: the other goes on.
            await apis[0].accepted("c", "slowly")
            await talkers[1].until(lambda event: "word 3," in str(event["data"].get("cumulative")))
            await platform.gateways[0].end(signal.SIGKILL)
            await talkers[1].until(says("assistant", SLOWLY))
            # It may die between storing what the agent said and telling the others.
            assert_numbered_or_told_anew(talkers[1].events)
            await platform.gateways[0].start()
            back = await listened(apis[0], "c")
            await apis[1].accepted("c", "hello again")
            await back.until(says("assistant", "You said hello again."))
            assert await apis[0].timeline("c") | {"serverTimeMs": 0} == await apis[1].timeline("c") | {
                "serverTimeMs": 0
            }
        finally:
            for api in apis:
                await api.aclose()


async def test_a_gateway_without_engines_to_share_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["serve", "gateway", f"--data-dir={tmp_path}/data"])
    assert result.exit_code == 2
    assert "redis_url" in result.output
    assert "serve sessions" in result.output
    assert not (tmp_path / "data").exists()


@pytest.mark.states("sem-chat/gateway/error-frame", "sem-chat/gateway/next-session")
async def test_who_prompts_an_agent_that_hangs_up_as_its_sessions_start_is_told(
    platform: RunningPlatform, operator: Operator
) -> None:
    deployed = await operator.deploy(HANGS_UP, name="shy", mode="data")
    api = ChatApi(f"{platform.base_url}/c/{deployed.client_key}")
    try:
        talker = await api.listen("c")
        await api.accepted("c", "hello")
        told = await talker.until(of_type("session.error"))
        assert told["data"]["code"] == "RUNNER_INTERNAL"
        row = await row_of(operator, deployed.project_id, told)
        assert "3 sessions of the conversation were begun for a prompt" in row["message"]
        sessions = (await operator.ask("GET", f"/projects/{deployed.project_id}/sessions"))["sessions"]
        assert len(sessions) == 3
        kinds = [entity["kind"] for entity in (await api.timeline("c"))["entities"]]
        assert kinds == ["message", "error"]
    finally:
        await api.aclose()
