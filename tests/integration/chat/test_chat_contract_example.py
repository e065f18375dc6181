"""The example of the contract's page, and the failures that the second seed wants told apart."""

from __future__ import annotations

import pytest

from tests.integration.chat.chatting import CONV, rig, upsert
from voicethere.chat import (
    ChatErrorRecord,
    ChatHttpError,
    ChatStore,
    ConversationManager,
    actions,
    selectors,
)
from voicethere.testing.chat_server import ScriptedChatServer


@pytest.mark.states("chat-state/example")
async def test_the_example_of_the_page_runs() -> None:
    """The names, their arguments and what they give, as chat-state.md writes them."""
    heard: list[tuple[object, object]] = []

    def listener(state: object, action: object) -> None:
        heard.append((state, action))

    async with ScriptedChatServer(base="/c/vthc_key") as server:
        store = ChatStore()
        unsubscribe = store.subscribe(listener)
        store.dispatch(
            actions.push_error("conv-1", kind="http_error", stage="send", status=500, message="no")
        )
        error = selectors.select_current_error(store.state, "conv-1")
        assert isinstance(error, ChatErrorRecord)
        assert heard[0][0] is store.state
        unsubscribe()

        assert server.base_url.endswith("/c/vthc_key")
        manager = ConversationManager(store, base_url=server.base_url)
        await manager.connect("conv-1")
        await manager.send("conv-1", "hello")
        assert manager.active_conversation_ids() == ("conv-1",)
        server.refuse("/chat", 503, "busy")
        with pytest.raises(ChatHttpError) as raised:
            await manager.send("conv-1", "hello")
        failure = raised.value
        assert (failure.status, failure.stage, failure.url) == (503, "send", f"{server.base_url}/chat")
        await manager.disconnect("conv-1")
        assert manager.active_conversation_ids() == ()
        await manager.aclose()
        assert len(heard) == 1


@pytest.mark.states(
    "seed-2/summary/precise-handling",
    "seed-2/problem/taxonomy",
    "seed-2/problem/stage",
)
async def test_failures_are_told_apart_by_kind_and_stage() -> None:
    """The socket, its end, hydration, a frame, a prompt, and a connect that never came to a socket."""
    async with rig() as chat:
        chat.server.refuse("/ws", 500)
        chat.server.refuse("/api/timeline", 500)
        await chat.manager.connect(CONV)
        await chat.manager.reconnect(CONV)
        (socket,) = chat.server.live(CONV)
        socket.send("no json")
        socket.send(upsert("after", "after", 1))
        await chat.until(lambda: chat.texts == ["after"])
        chat.server.refuse("/chat", 500)
        with pytest.raises(ChatHttpError):
            await chat.manager.send(CONV, "hello")
        socket.close(1011, "no more")
        await chat.until(lambda: chat.status == "closed")
        assert chat.kinds == [
            "ws_error/stream",
            "http_error/hydrate",
            "sem_decode_error/stream",
            "http_error/send",
            "ws_close/disconnect",
        ]

    async def headers() -> dict[str, str]:
        raise LookupError("no token")

    async with rig(headers=headers) as chat:
        await chat.manager.connect(CONV)
        assert chat.kinds == ["runtime_error/connect"]


@pytest.mark.states("seed-2/problem/metadata/parse-category")
async def test_frames_that_cannot_be_read_say_what_is_wrong_with_them() -> None:
    async with rig(store=ChatStore(duplicate_window_ms=0)) as chat:
        await chat.manager.connect(CONV)
        (socket,) = chat.server.sockets
        for frame in (
            "no json",
            '{"sem": true, "event": {"type": "llm.delta", "id": "a", "data": {"delta": 5}}}',
            b"\x00",
        ):
            count = len(chat.errors)
            socket.send(frame)
            await chat.until(lambda count=count: len(chat.errors) == count + 1)
        reasons = [str((error.details or {})["reason"]) for error in chat.errors]
        assert "not JSON" in reasons[0]
        assert "delta" in reasons[1]
        assert "binary" in reasons[2]
