"""What an application clears of a conversation that it has left stays cleared."""

from __future__ import annotations

from tests.integration.chat.chatting import CONV, rig
from voicethere.chat import actions, selectors


async def test_a_session_cleared_in_its_grace_does_not_come_back() -> None:
    async with rig() as chat:
        await chat.manager.connect(CONV)
        chat.server.frame(CONV, "llm.start", "m1", {"id": "m1", "role": "assistant"})
        await chat.until(lambda: chat.is_streaming)
        await chat.manager.disconnect(CONV)
        chat.store.dispatch(actions.clear_conversation_session(CONV))
        chat.store.dispatch(actions.clear_conversation(CONV))
        await chat.timers.fire(lambda seconds: seconds == 0.75)
        await chat.server.until(lambda: not chat.server.live(CONV))
        assert selectors.select_conversation_ids(chat.store.state) == ()
