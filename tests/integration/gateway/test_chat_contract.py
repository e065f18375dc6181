"""What sem-chat.md promises of a gateway and no story of a conversation tells by itself."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from tests.e2e.waiting import eventually_true
from tests.integration.gateway.conftest import Served, World
from tests.integration.gateway.talking import ChatApi, assert_numbered, of_type, says
from voicethere.roles.gateway import sockets
from voicethere.wire.control_channel import EndReason
from voicethere.wire.control_plane import KeyKind
from voicethere.wire.relay import ChatClosed, ChatMessage, ChatPassed, ChatStreamStart, ChatStreamText


@pytest.mark.states(
    "sem-chat/unknown-id/any-first", "sem-chat/unknown-id/socket", "sem-chat/unknown-id/timeline"
)
async def test_any_of_the_three_requests_may_come_first(world: World, api: ChatApi) -> None:
    for number, order in enumerate(itertools.permutations(["prompt", "timeline", "socket"])):
        conv_id, prompt = f"invented-{number}", f"hello {number}"
        talkers = []
        for what in order:
            if what == "prompt":
                await api.accepted(conv_id, prompt)
            elif what == "timeline":
                shown = await api.timeline(conv_id)
                asked = order.index("prompt") < order.index("timeline")
                assert [entity["props"]["content"] for entity in shown["entities"]] == [prompt] * asked
            else:
                talkers.append(await api.listen(conv_id))
        session_id = await world.chats.prompted(prompt)
        await world.chats.say(session_id, ChatMessage(speech_id=f"{session_id}-1", text="Hi."))
        (talker,) = talkers
        await talker.until(says("user", prompt))
        await talker.until(says("assistant", "Hi."))
        assert_numbered(talker.numbered)


@pytest.mark.states("sem-chat/text/end-on-reconnect")
async def test_a_stream_of_the_agents_own_does_not_stay_open_on_who_missed_its_end(
    world: World, api: ChatApi
) -> None:
    """sem-chat: "a stream cut off by a lost socket must not stay open", nor one that no entity tells of."""

    def passed(event_type: str) -> ChatPassed:
        return ChatPassed(payload=json.dumps({"sem": True, "event": {"type": event_type, "id": "t"}}))

    talker = await api.listen("c")
    session_id = await world.conversation(api, "c")
    await world.chats.say(session_id, passed("llm.thinking.start"))
    await talker.until(of_type("llm.thinking.start"))
    await talker.aclose()
    await world.chats.say(session_id, passed("llm.thinking.final"))
    back = await api.listen("c")
    end = await back.until(of_type("llm.thinking.final"))
    assert (end["id"], "seq" in end) == ("t", False)


class Pinged(ClientConnection):
    """A client's socket that counts the server's pings."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pings = 0
        self.thrice = asyncio.Event()

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pings += 1
            if self.pings == 3:
                self.thrice.set()
        super().process_event(event)


@pytest.mark.states("sem-chat/connect/kept-open")
async def test_a_silent_socket_is_kept_open_with_pings(
    world: World, api: ChatApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "PING_SECONDS", 0.02)
    async with connect(api.ws_url("c"), ping_interval=None, create_connection=Pinged) as connection:
        assert isinstance(connection, Pinged)
        async with asyncio.timeout(20):
            await connection.thrice.wait()
        session_id = await world.conversation(api, "c", "hello")
        await world.chats.say(session_id, ChatMessage(speech_id=f"{session_id}-1", text="Hi."))
        async with asyncio.timeout(20):
            while "Hi." not in str(await connection.recv()):
                pass


@pytest.mark.states("sem-chat/connect/not-closed-by-sessions", "sem-chat/gateway/next-session")
@pytest.mark.parametrize("reason", [EndReason.IDLE_TIMEOUT, EndReason.AGENT_DISCONNECTED])
async def test_the_socket_outlives_sessions_that_idle_or_end(
    world: World, api: ChatApi, reason: EndReason
) -> None:
    talker = await api.listen("c")
    first = await world.conversation(api, "c", "hello")
    await world.chats.say(first, ChatClosed(end_reason=reason))
    second = await world.conversation(api, "c", "hello again")
    assert second != first
    await world.chats.say(second, ChatMessage(speech_id=f"{second}-1", text="Welcome back."))
    await talker.until(says("assistant", "Welcome back."))
    assert talker.close_code is None
    assert_numbered(talker.numbered)


@pytest.mark.states("sem-chat/get-ws")
async def test_frames_come_as_text(world: World, api: ChatApi) -> None:
    async with connect(api.ws_url("c")) as connection:
        await api.accepted("c", "hello")
        async with asyncio.timeout(20):
            assert isinstance(await connection.recv(), str)


@pytest.mark.states("sem-chat/version/snapshot", "sem-chat/version/one-counter", "sem-chat/version/upsert")
async def test_versions_of_upserts_and_snapshots_are_of_one_counter(world: World, api: ChatApi) -> None:
    talker = await api.listen("c")
    session_id = await world.conversation(api, "c", "hello")
    name = f"{session_id}-1"
    await world.chats.say(
        session_id,
        ChatStreamStart(speech_id=name),
        ChatStreamText(speech_id=name, delta="Hi", cumulative="Hi"),
    )
    versions = [(await api.timeline("c"))["version"]]
    await world.chats.say(session_id, ChatMessage(speech_id=f"{session_id}-2", text="And more."))
    versions.append((await api.timeline("c"))["version"])
    await talker.until(says("assistant", "And more."))
    told = [int(event["data"]["version"]) for event in talker.numbered if event["type"] == "timeline.upsert"]
    assert told == [1, 2, 3]
    assert versions == [2, 3]


@pytest.mark.states("sem-chat/keys/one-project", "sem-chat/ids/scoped")
async def test_nothing_of_another_project_comes_to_a_client_key(
    world: World, served: Served, api: ChatApi
) -> None:
    other = await world.store.create_project(org_id=world.org_id, name="other", slug="other")
    neighbour = world.client(served, base=await world.new_key(KeyKind.CLIENT, other.id))
    theirs = await neighbour.listen("same")
    ours = await api.listen("same")
    session_id = await world.conversation(api, "same", "mine")
    await world.chats.say(session_id, ChatMessage(speech_id=f"{session_id}-1", text="Hi."))
    await ours.until(says("assistant", "Hi."))
    await eventually_true("both sockets are here", lambda: len(served.gateway.here) == 2)
    await world.conversation(neighbour, "same", "theirs")
    await theirs.until(says("user", "theirs"))
    assert [event["data"]["entity"]["props"]["content"] for event in theirs.events] == ["theirs"]
