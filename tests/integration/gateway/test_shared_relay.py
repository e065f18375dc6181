"""One end of the relay for two readers of one process."""

from __future__ import annotations

import asyncio
from pathlib import Path

from voicethere.adapters.relay.embedded import EmbeddedRelayHub, EmbeddedRunnerLink
from voicethere.adapters.relay.inbox import INBOX_MESSAGES
from voicethere.adapters.relay.shared import SharedHub
from voicethere.wire.relay import (
    CancelSession,
    ChatPromptTaken,
    Heartbeat,
    RunnerHello,
    SessionWanted,
)


def hello() -> RunnerHello:
    return RunnerHello(runner_id="r", capacity=1)


async def test_every_view_hears_what_it_wants_and_may_speak(tmp_path: Path) -> None:
    shared = SharedHub(await EmbeddedRelayHub.start(tmp_path / "relay.sock"))
    everything = shared.view(lambda message: not isinstance(message, ChatPromptTaken))
    chats = shared.view(lambda message: isinstance(message, ChatPromptTaken))
    shared.start()
    link = await EmbeddedRunnerLink.start(tmp_path / "relay.sock", hello=hello)
    all_heard, chats_heard = everything.messages(), chats.messages()
    async with asyncio.timeout(10):
        assert await anext(all_heard) == ("r", hello())
        await link.send(ChatPromptTaken(session_id="s", number=1))
        await link.send(Heartbeat(active=0))
        assert await anext(all_heard) == ("r", Heartbeat(active=0))
        assert await anext(chats_heard) == ("r", ChatPromptTaken(session_id="s", number=1))
        await chats.send("r", CancelSession(session_id="s"))
        assert await anext(link.messages()) == CancelSession(session_id="s")
        await chats.publish(SessionWanted(session_id="s"))
        for view in (everything, chats):
            assert await anext(view.notices()) == SessionWanted(session_id="s")
        assert everything.linked
        everything.drop("r")
        assert await anext(all_heard) == ("r", None)
        await link.aclose()
        await shared.aclose()
        assert not chats.linked
        assert [item async for item in chats_heard] == []


async def test_a_view_that_is_closed_holds_nobody_up(tmp_path: Path) -> None:
    shared = SharedHub(await EmbeddedRelayHub.start(tmp_path / "relay.sock"))
    reader, closed = shared.view(lambda message: True), shared.view(lambda message: True)
    shared.start()
    link = await EmbeddedRunnerLink.start(tmp_path / "relay.sock", hello=hello)
    heard = reader.messages()
    async with asyncio.timeout(20):
        await anext(heard)
        await closed.aclose()
        for number in range(INBOX_MESSAGES + 10):
            await link.send(ChatPromptTaken(session_id="s", number=number))
        for number in range(INBOX_MESSAGES + 10):
            assert await anext(heard) == ("r", ChatPromptTaken(session_id="s", number=number))
        await link.aclose()
        await shared.aclose()
