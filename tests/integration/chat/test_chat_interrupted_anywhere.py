"""Whatever is cancelled, or closed under it, after any number of steps: it ends, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.integration.chat.chatting import CONV
from voicethere.chat import ChatHttpError, ChatStore, ChatTimings, ConversationManager, selectors
from voicethere.testing.chat_server import ScriptedChatServer

MANY_STEPS = 60
SECONDS = 20.0


async def connect(manager: ConversationManager) -> None:
    await manager.connect(CONV)


async def reconnect(manager: ConversationManager) -> None:
    await manager.connect(CONV)
    await manager.reconnect(CONV)


async def follow(manager: ConversationManager) -> None:
    async with manager.conversation(CONV, profile="p") as conversation:
        await conversation.send("hello")
        async for _ in conversation.changes():
            pass


async def close(manager: ConversationManager) -> None:
    await manager.connect(CONV)
    await manager.aclose()


@pytest.mark.parametrize("work", [connect, reconnect, follow, close])
@pytest.mark.parametrize("interrupt", ["cancel", "aclose"])
async def test_work_that_is_interrupted_anywhere_ends_and_leaves_nothing(
    work: Callable[[ConversationManager], Awaitable[None]], interrupt: str
) -> None:
    async with ScriptedChatServer(on_prompt=lambda server, conv_id, prompt: None) as server:
        for steps in range(MANY_STEPS):
            store = ChatStore()
            async with (
                asyncio.timeout(SECONDS),
                ConversationManager(store, server.base_url, timings=ChatTimings(open_wait=0.0)) as manager,
            ):
                working = asyncio.ensure_future(work(manager))
                for _ in range(steps):
                    await asyncio.sleep(0)
                was_done = working.done()
                if interrupt == "cancel":
                    working.cancel()
                else:
                    await manager.aclose()
                await asyncio.wait([working])
                if not working.cancelled():
                    # A closed manager says so; a prompt that it cut off is a failed one.
                    assert isinstance(working.exception(), (RuntimeError, ChatHttpError, type(None)))
            assert selectors.select_connection_status(store.state, CONV) in ("idle", "closed")
            assert not selectors.select_is_streaming(store.state, CONV)
            if was_done:
                break
