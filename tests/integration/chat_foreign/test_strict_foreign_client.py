"""A strict client that somebody else wrote, against the real gateway and a real agent."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.waiting import eventually
from tests.integration.chat_foreign.strict_client import Json, StrictClient
from tests.integration.chat_proxy.conftest import Gateway

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

HALF = "Before. Still before. "
COUNTED = "".join(f"word {number}, " for number in range(25))


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: Gateway) -> AsyncIterator[StrictClient]:
    made = StrictClient(gateway.base_url)
    yield made
    await made.aclose()


@pytest.fixture
def conv_id() -> str:
    return f"f-{uuid.uuid4().hex}"


def says(role: str, content: str, *, streaming: bool = False) -> Callable[[Json], bool]:
    """Whether an event shows this message."""
    wanted = {"role": role, "content": content, "streaming": streaming}
    return lambda event: event["type"] == "timeline.upsert" and event["data"]["entity"]["props"] == wanted


def of_type(name: str) -> Callable[[Json], bool]:
    return lambda event: event["type"] == name


@pytest.mark.states(
    "sem-chat/entity/sender-strict", "sem-chat/text/echo-first", "sem-chat/version/one-counter"
)
async def test_every_frame_of_a_conversation_is_what_the_contract_says(
    client: StrictClient, conv_id: str
) -> None:
    """sem-chat: "A sender keeps to them strictly", "gapless `seq` per conversation" from 1 on."""
    empty = await client.timeline(conv_id)
    assert (empty["version"], empty["entities"]) == (0, [])
    socket = await client.listen(conv_id, from_the_start=True)
    await client.say(conv_id, "hello")
    await socket.until(says("assistant", "You said: hello"))
    await client.say(conv_id, "count 25")
    await socket.until(says("assistant", COUNTED))
    await client.say(conv_id, "card for you")
    card = await socket.until(of_type("agent.message"))
    assert card["data"] == {"card": "for you", "none": None, "numbers": [1, 2.5, 2**60]}
    await client.say(conv_id, 'Ünïcödé \u2028 "quotes" \\ \u0007 🎉')
    await socket.until(says("assistant", 'You said: Ünïcödé \u2028 "quotes" \\ \u0007 🎉'))
    assert socket.streams == {}
    snapshot = await client.timeline(conv_id)
    assert [entity["props"]["content"] for entity in snapshot["entities"]] == [
        "hello",
        "You said: hello",
        "count 25",
        COUNTED,
        "card for you",
        'Ünïcödé \u2028 "quotes" \\ \u0007 🎉',
        'You said: Ünïcödé \u2028 "quotes" \\ \u0007 🎉',
    ]
    assert snapshot["entities"] == _last_told(socket.events)
    await client.say(conv_id, "goodbye now")
    await socket.until(says("assistant", "Goodbye now."))
    await socket.aclose()


def _last_told(events: list[Json]) -> list[Json]:
    """The entities as the frames left them, in the order of their first arrival."""
    told: dict[str, Any] = {}
    for event in events:
        if event["type"] == "timeline.upsert":
            told[event["id"]] = event["data"]["entity"]
    return list(told.values())


@pytest.mark.states("sem-chat/text/end-before-error")
async def test_an_agent_that_fails(gateway: Gateway, client: StrictClient, conv_id: str) -> None:
    """sem-chat: "End every stream before a `session.error`"; "An error is a `session.error` frame and a
    `timeline.upsert` of kind `error` whose id is the error row's id"."""
    socket = await client.listen(conv_id, from_the_start=True)
    await client.say(conv_id, "please crash now")
    failed = await socket.until(of_type("session.error"))
    assert failed["data"]["code"] == "AGENT_HANDLER_FAILED"
    assert failed["data"]["recoverable"] is False
    assert failed["data"]["project_id"] == gateway.project_id
    shown = await socket.until(
        lambda event: event["type"] == "timeline.upsert" and event["id"] == failed["id"]
    )
    assert shown["data"]["entity"]["kind"] == "error"
    assert shown["data"]["entity"]["props"]["code"] == "AGENT_HANDLER_FAILED"
    # A reload: all that a client has then is the timeline, and entities that are told again.
    reloaded = await client.timeline(conv_id)
    assert [entity["kind"] for entity in reloaded["entities"]][-1] == "error"
    assert reloaded["entities"][-1] == shown["data"]["entity"]
    assert not any(entity["props"].get("streaming") for entity in reloaded["entities"])
    again = await client.listen(conv_id, from_the_start=False)
    await again.until(lambda event: event["id"] == failed["id"])
    await again.aclose()

    async def rows() -> list[str]:
        session_id = failed["data"]["session_id"]
        return [row["id"] for row in await gateway.operator.errors(gateway.project_id, session_id)]

    await eventually("the operator's row", rows, lambda ids: ids == [failed["id"]])
    await client.say(conv_id, "goodbye then")
    await socket.until(says("assistant", "Goodbye then."))
    await socket.aclose()


async def test_a_stream_that_raises_half_way(client: StrictClient, conv_id: str) -> None:
    socket = await client.listen(conv_id, from_the_start=True)
    await client.say(conv_id, "break")
    failed = await socket.until(of_type("session.error"))
    assert failed["data"]["code"] == "AGENT_HANDLER_FAILED"
    await socket.until(says("assistant", "What has hands, but cannot clap? "))
    await socket.aclose()


@pytest.mark.states("sem-chat/version/order", "sem-chat/text/without-text")
async def test_who_reloads_finds_the_order_of_who_was_there(client: StrictClient, conv_id: str) -> None:
    """A user who goes on writing while the agent still thinks: the reply stands behind that for all."""
    socket = await client.listen(conv_id, from_the_start=True)
    await client.say(conv_id, "think")
    await socket.until(of_type("llm.start"))
    assert len((await client.timeline(conv_id))["entities"]) == 1, "a reply without text is nothing to show"
    await client.say(conv_id, "on")
    await socket.until(says("assistant", "At last."))
    reloaded = (await client.timeline(conv_id))["entities"]
    assert [entity["props"]["content"] for entity in reloaded] == ["think", "on", "At last."]
    assert reloaded == _last_told(socket.events)
    await socket.aclose()


async def test_a_socket_that_comes_within_a_reply(client: StrictClient, conv_id: str) -> None:
    """sem-chat: "the gateway sends the conversation's latest entities again when a socket opens"."""
    first = await client.listen(conv_id, from_the_start=True)
    await client.say(conv_id, "pause")
    await first.until(says("assistant", HALF, streaming=True))
    late = await client.listen(conv_id, from_the_start=False)
    await late.until(says("assistant", HALF, streaming=True))
    assert all("seq" not in event for event in late.events)
    assert _last_told(late.events) == (await client.timeline(conv_id))["entities"]
    begun = len(first.events)
    await client.say(conv_id, "on")
    for socket in (first, late):
        await socket.until(says("assistant", HALF + "After."))
    await client.say(conv_id, "goodbye both")
    for socket in (first, late):
        await socket.until(says("assistant", "Goodbye both."))
    live = [event for event in late.events if "seq" in event]
    assert live == first.events[begun:], "what comes live is the same on every socket"
    for socket in (first, late):
        await socket.aclose()


@pytest.mark.states("sem-chat/errors/plain", "sem-chat/errors/code")
async def test_what_is_refused_is_refused_in_words(client: StrictClient, conv_id: str) -> None:
    """sem-chat: "error bodies are plain text for people (the code goes into an `x-error-code` header)"."""
    prompts: list[tuple[Any, int]] = [
        ({"prompt": "", "conv_id": conv_id}, 422),
        ({"prompt": "x"}, 422),
        ({"prompt": 5, "conv_id": conv_id}, 422),
        ({"prompt": "x", "conv_id": "\x00"}, 422),
        ([], 422),
    ]
    for body, expected in prompts:
        status, code, _ = await client.refused("POST", "/chat", json=body)
        assert status in (400, expected), body
        assert code
    assert (await client.refused("GET", "/api/timeline"))[0] == 422
    assert (await client.refused("GET", "/nowhere"))[0] == 404
    assert (await client.refused("PUT", "/chat"))[0] == 405
    assert (await client.timeline(conv_id))["version"] == 0
