"""The handle on one conversation, and the example of the docs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.markdown_blocks import blocks
from tests.integration.chat.chatting import CONV, rig
from voicethere.chat import ChatHttpError, Conversation, actions
from voicethere.testing.chat_server import ScriptedChatServer

PAGE = Path(__file__).parents[3] / "docs" / "chat-runtime.md"


async def test_it_sends_and_shows_what_comes() -> None:
    async with rig() as chat, chat.manager.conversation(CONV) as conversation:
        assert (conversation.conv_id, conversation.connection_status) == (CONV, "connected")
        assert not conversation.is_awaiting_reply
        accepting = chat.server.hold("/chat")
        sending = asyncio.create_task(conversation.send("hello"))
        await chat.server.until(lambda: chat.server.prompts)
        assert conversation.is_awaiting_reply
        accepting.set()
        await sending
        await chat.until(lambda: len(conversation.entities) == 2 and not conversation.is_streaming)
        assert [entity.props["content"] for entity in conversation.entities] == ["hello", "You said: hello"]
        assert not conversation.is_awaiting_reply
        assert (conversation.current_error, conversation.error_history) == (None, ())
        assert conversation.last_prompt == "hello"
        assert (conversation.model_name, conversation.turn_stats) == (None, None)
        assert conversation.suggestions == ()


async def test_changes_gives_the_newest_state_and_ends_with_the_conversation() -> None:
    async with rig() as chat:
        seen: list[tuple[str, int]] = []
        heard = asyncio.Event()

        async def follow(conversation: Conversation) -> None:
            async for state in conversation.changes():
                assert state is chat.store.state
                seen.append((conversation.connection_status, len(conversation.entities)))
                heard.set()

        async with chat.manager.conversation(CONV) as conversation:
            following = asyncio.create_task(follow(conversation))
            async with asyncio.timeout(10):
                await heard.wait()
            heard.clear()
            chat.store.dispatch(actions.set_model_name("another", "m"))
            chat.server.upsert(CONV, "m1", "message", {"role": "assistant", "content": "Hi."})
            async with asyncio.timeout(10):
                await heard.wait()
            for number in range(50):
                chat.store.dispatch(actions.set_model_name(CONV, f"m{number}"))
        async with asyncio.timeout(10):
            await following
        # The 50 are one to who reads them later; and leaving ends it.
        assert seen[:2] == [("connected", 0), ("connected", 1)]
        assert len(seen) <= 3


async def test_retry_sends_a_refused_prompt_again() -> None:
    async with rig() as chat, chat.manager.conversation(CONV) as conversation:
        chat.server.refuse("/chat", 503, "busy")
        with pytest.raises(ChatHttpError):
            await conversation.send("hello")
        assert conversation.current_error is not None
        await conversation.retry()
        assert conversation.current_error is None
        assert len(conversation.error_history) == 1
        assert [prompt["prompt"] for prompt in chat.server.prompts] == ["hello", "hello"]
        await conversation.retry()
        assert len(chat.server.prompts) == 2


async def test_retry_sends_the_prompt_again_over_which_the_session_failed() -> None:
    envelope = {"code": "AGENT_HANDLER_FAILED", "message": "Sorry.", "session_id": "s"}

    def fail(server: ScriptedChatServer, conv_id: str, prompt: str) -> None:
        server.frame(conv_id, "session.error", "err-1", envelope)

    async with rig(on_prompt=fail) as chat, chat.manager.conversation(CONV) as conversation:
        await conversation.send("hello")
        await chat.until(lambda: conversation.current_error)
        await conversation.retry()
        assert [prompt["prompt"] for prompt in chat.server.prompts] == ["hello", "hello"]


async def test_retry_connects_again_where_the_connection_failed() -> None:
    async with rig() as chat:
        chat.server.refuse("/ws", 503)
        async with chat.manager.conversation(CONV) as conversation:
            await conversation.send("hello")
            await conversation.retry()
            assert conversation.connection_status == "connected"
            assert len(chat.server.prompts) == 1


@pytest.mark.states("seed-2/plan/stale-clear", "chat-state/manager/connect")
async def test_a_failing_server_raises_nothing_and_the_error_can_be_cleared() -> None:
    """chat-state: "raises nothing for a failing server: it records"."""
    async with rig() as chat:
        chat.server.on_accept(lambda wire: wire.reset())
        async with chat.manager.conversation(CONV) as conversation:
            assert conversation.connection_status == "closed"
            assert [error.kind for error in conversation.error_history] == ["ws_error", "hydrate_error"]
            conversation.clear_error()
            assert conversation.current_error is None
            assert len(conversation.error_history) == 2


async def test_a_conversation_that_was_left_is_of_no_use() -> None:
    async with rig() as chat:
        async with chat.manager.conversation(CONV, window_id="w") as conversation:
            assert conversation.window_id == "w"
        assert chat.manager.active_conversation_ids() == ()
        for use in (conversation.send("x"), conversation.reconnect(), conversation.retry()):
            with pytest.raises(RuntimeError, match="was left"):
                await use


async def test_the_example_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example = next(block for block in blocks(PAGE) if "async def chat(" in block.body)
    found: dict[str, Any] = {"__name__": "example"}
    exec(compile(example.body, str(PAGE), "exec"), found)
    async with ScriptedChatServer() as server:
        await found["chat"](server.base_url)
        server.refuse("/chat", 503, "busy")
        await found["chat"](server.base_url)
    assert capsys.readouterr().out == "You said: hello\n503 busy\n"
