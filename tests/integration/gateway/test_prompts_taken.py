"""Which session a prompt is for: each is given to one that takes it, once, and not to ever more of them."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.e2e.waiting import eventually_true
from tests.integration.gateway.conftest import SETTINGS, World
from tests.integration.gateway.talking import ChatApi, assert_numbered, of_type, says, upsert
from voicethere.adapters.store.records import PendingPrompt
from voicethere.adapters.store.store import Store
from voicethere.core.conversation import MAX_PROMPT_SESSIONS
from voicethere.wire.control_channel import EndReason
from voicethere.wire.relay import ChatClosed, ChatMessage
from voicethere.wire.session_api import ProvisioningStatus

CLOSED = ChatClosed(end_reason=EndReason.AGENT_DISCONNECTED)


async def prompted(world: World, index: int) -> str:
    """The session that was wanted as this one, from 0, once it was given a prompt."""
    chats = world.chats
    await eventually_true("a session begins", lambda: len(chats.sessions) == index + 1)
    session_id = chats.sessions[index]
    await eventually_true(
        "it is prompted", lambda: session_id in {prompt.session_id for prompt in chats.prompts}
    )
    return session_id


@pytest.mark.states("sem-chat/gateway/next-session")
async def test_a_prompt_that_was_answered_is_not_given_to_the_next_session(
    world: World, api: ChatApi
) -> None:
    """What the session said of its prompts may be lost, or be stored after its last word."""
    world.chats.takes = False  # what is not said is like what was lost
    talker = await api.listen("c")
    first = await world.conversation(api, "c", "hello")
    for body in (ChatMessage(speech_id=f"{first}-1", text="Hi."), CLOSED):
        number = world.chats.number(first)
        await world.chats.send(first, number, body, prompts=1)
        await world.chats.stored(first, number)
    await talker.until(says("assistant", "Hi."))
    assert await world.store.pending_prompts(world.project_id, "c") == []
    second = await world.conversation(api, "c", "and now?")
    given = [(prompt.session_id, prompt.text) for prompt in world.chats.prompts]
    assert set(given) == {(first, "hello"), (second, "and now?")}


@pytest.mark.states("sem-chat/gateway/error-frame", "sem-chat/gateway/error-id")
async def test_a_prompt_that_session_after_session_does_not_take_is_an_error(
    world: World, api: ChatApi
) -> None:
    world.chats.takes = False
    talker = await api.listen("c")
    await api.accepted("c", "hello")
    for count in range(MAX_PROMPT_SESSIONS):
        session_id = await prompted(world, count)
        await world.chats.say(session_id, CLOSED)
    told = await talker.until(of_type("session.error"))
    entity = await talker.until(lambda event: (upsert(event) or {}).get("kind") == "error")
    assert entity["id"] == told["id"]
    assert told["data"]["code"] == "RUNNER_INTERNAL"
    assert told["data"]["session_id"] == world.chats.sessions[-1]
    rows = await world.store.session_errors(world.project_id, world.chats.sessions[-1], limit=9, cursor=None)
    (row,) = rows.errors
    assert row.id == told["id"]
    assert "agent_disconnected" not in told["data"]["message"], "what an operator reads"
    assert await world.store.pending_prompts(world.project_id, "c") == []
    world.chats.takes = True
    later = await world.conversation(api, "c", "still there?")
    await world.chats.say(later, ChatMessage(speech_id=f"{later}-1", text="Yes."))
    await talker.until(says("assistant", "Yes."))
    assert len(world.chats.sessions) == MAX_PROMPT_SESSIONS + 1
    assert_numbered(talker.numbered)


async def test_conversations_that_stand_in_the_line_are_looked_at_ever_less_often(world: World) -> None:
    """However many wait, they must not keep the database from those that talk; news come all the same."""
    looks: list[str] = []

    class Watched(Store):
        async def pending_prompts(self, project_id: str, conv_id: str) -> list[PendingPrompt]:
            looks.append(conv_id)
            return await super().pending_prompts(project_id, conv_id)

    world.chats.hosts = False
    store = await Watched.open(f"sqlite:///{world.folder}/voicethere.db")
    quick = msgspec.structs.replace(SETTINGS, look_seconds=0.01, orphan_seconds=600.0)
    api = world.client(await world.gateway(quick, store=store))
    await api.accepted("c", "hello")
    await eventually_true("a session begins", lambda: bool(world.chats.sessions))
    (session_id,) = world.chats.sessions
    await store.update_session(session_id, status=ProvisioningStatus.WAITING)
    before = len(looks)
    await eventually_true("it is looked a few times", lambda: len(looks) >= before + 6)
    begun = asyncio.get_running_loop().time()
    await eventually_true("it is looked again", lambda: len(looks) >= before + 10)
    assert asyncio.get_running_loop().time() - begun >= 4 * 0.1, "sixteen times more seldom, or nearly so"
    await world.chats.make_ready(session_id)
    assert await world.chats.prompted("hello") == session_id
    await store.aclose()
