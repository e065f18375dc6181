"""A handle whose manager is closed, and a prompt that is given up: nobody is left waiting."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.chat.chatting import CONV, rig


async def test_closing_the_manager_ends_what_follows_a_conversation() -> None:
    async with rig() as chat:
        following, ended = asyncio.Event(), asyncio.Event()

        async def follow() -> None:
            async with chat.manager.conversation(CONV) as conversation:
                async for _ in conversation.changes():
                    following.set()
                ended.set()
                with pytest.raises(RuntimeError, match="its manager closed"):
                    await conversation.send("hello")

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(follow())
            await following.wait()
            await chat.manager.aclose()
            await ended.wait()


async def test_a_conversation_whose_manager_is_closed_while_it_connects_is_not_entered() -> None:
    async with rig() as chat:
        held = chat.server.hold("/ws")

        async def enter() -> None:
            async with chat.manager.conversation(CONV):
                raise AssertionError("entered")

        entering = asyncio.create_task(enter())
        await chat.server.until(lambda: "/ws" in chat.server.paths())
        await chat.manager.aclose()
        with pytest.raises(RuntimeError, match="the conversation manager is closed"):
            async with asyncio.timeout(10):
                await entering
        held.set()


async def test_a_prompt_that_is_given_up_is_not_waited_for() -> None:
    async with rig() as chat, chat.manager.conversation(CONV) as conversation:
        held = chat.server.hold("/chat")
        sending = asyncio.create_task(conversation.send("hello"))
        await chat.server.until(lambda: "/chat" in chat.server.paths())
        assert conversation.is_awaiting_reply
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert not conversation.is_awaiting_reply
        held.set()


async def test_the_scripted_server_says_nothing_on_a_socket_that_says_goodbye() -> None:
    async with rig() as chat:
        await chat.manager.connect(CONV)
        (socket,) = chat.server.live(CONV)
        socket.close(1001)
        chat.server.upsert(CONV, "m1", "message", {"role": "assistant", "content": "Hi."})
        assert chat.server.live(CONV) == []
        await chat.until(lambda: chat.kinds == ["ws_close/disconnect"])
