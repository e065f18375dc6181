"""Conversations are counted by their users, and the last one's end has a grace."""

from __future__ import annotations

import pytest

from tests.integration.chat.chatting import CONV, rig
from voicethere.chat import actions, selectors


def is_grace(seconds: float) -> bool:
    return seconds == 0.75


@pytest.mark.states(
    "sem-chat/references/counted",
    "chat-state/manager/disconnect",
    "chat-state/manager/active-conversation-ids",
)
async def test_the_socket_lives_until_the_last_user_has_left() -> None:
    """sem-chat: "Conversations are reference-counted"."""
    async with rig() as chat:
        await chat.manager.connect(CONV)
        await chat.manager.connect(CONV)
        await chat.manager.disconnect(CONV)
        assert chat.manager.active_conversation_ids() == (CONV,)
        assert chat.timers.running == []
        await chat.manager.disconnect(CONV)
        assert chat.manager.active_conversation_ids() == ()
        await chat.timers.fire(is_grace)
        await chat.server.until(lambda: not chat.server.live(CONV))
        assert chat.errors == ()


@pytest.mark.states("sem-chat/references/cancelled", "sem-chat/references/not-active")
async def test_a_connect_within_the_grace_keeps_the_socket() -> None:
    """sem-chat: "… after a 750 ms grace, which a new connect cancels"."""
    async with rig() as chat:
        await chat.manager.connect(CONV)
        await chat.manager.disconnect(CONV)
        assert chat.manager.active_conversation_ids() == ()
        await chat.timers.begun(is_grace)
        assert chat.server.live(CONV)
        await chat.manager.connect(CONV)
        await chat.timers.none_left()
        assert chat.manager.active_conversation_ids() == (CONV,)
        assert chat.server.paths() == ["/ws", "/api/timeline"]
        assert "disconnect" not in chat.seen


@pytest.mark.states("sem-chat/references/grace", "sem-chat/references/history")
async def test_the_debug_history_goes_when_the_grace_is_over() -> None:
    """sem-chat: "its debug history goes only when the grace is over"."""
    async with rig() as chat:
        await chat.manager.connect(CONV)
        await chat.manager.disconnect(CONV)
        assert chat.log.entries(CONV)
        await chat.timers.fire(is_grace)
        await chat.until(lambda: chat.status == "closed")
        await chat.server.until(lambda: not chat.server.live(CONV))
        assert chat.log.entries(CONV) == ()
        assert chat.seen[-1] == "disconnect"


async def test_the_state_of_a_conversation_stays_for_the_application() -> None:
    async with rig() as chat:
        await chat.manager.connect(CONV)
        await chat.manager.send(CONV, "hello")
        await chat.until(lambda: len(chat.texts) == 2)
        await chat.manager.disconnect(CONV)
        await chat.timers.fire(is_grace)
        await chat.until(lambda: chat.status == "closed")
        assert chat.texts == ["hello", "You said: hello"]
        await chat.manager.connect(CONV)
        assert (chat.status, chat.texts) == ("connected", ["hello", "You said: hello"])


@pytest.mark.states("chat-state/manager/disconnect")
async def test_a_disconnect_too_many_changes_nothing() -> None:
    async with rig() as chat:
        await chat.manager.disconnect("unknown")
        await chat.manager.connect(CONV)
        await chat.manager.disconnect(CONV)
        await chat.manager.disconnect(CONV)
        await chat.manager.connect(CONV)
        assert chat.manager.active_conversation_ids() == (CONV,)


@pytest.mark.states("chat-state/manager/aclose", "chat-state/manager/active-conversation-ids")
async def test_aclose_ends_everything_without_a_grace() -> None:
    """chat-state: "manager.active_conversation_ids();  await manager.aclose()"."""
    async with rig() as chat:
        for conv_id in ("a", "b", "c"):
            await chat.manager.connect(conv_id)
        await chat.manager.disconnect("c")
        assert chat.manager.active_conversation_ids() == ("a", "b")
        await chat.manager.aclose()
        assert chat.manager.active_conversation_ids() == ()
        await chat.server.until(lambda: all(socket.closed.is_set() for socket in chat.server.sockets))
        assert selectors.select_connection_status(chat.store.state, "a") == "closed"
        assert len(chat.server.sockets) == 3
        await chat.manager.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await chat.manager.send(CONV, "hello")


@pytest.mark.states("seed-2/alternatives/no-global-slice")
async def test_errors_of_one_conversation_do_not_touch_another() -> None:
    """seed-2: "errors are conversation-scoped in this architecture"."""
    async with rig() as chat:
        await chat.manager.connect("other")
        chat.server.refuse("/ws", 500)
        await chat.manager.connect(CONV)
        assert chat.kinds == ["ws_error/stream"]
        assert selectors.select_error_history(chat.store.state, "other") == ()
        assert selectors.select_connection_status(chat.store.state, "other") == "connected"


@pytest.mark.states("chat-state/mirror", "chat-state/mirror/off", "seed-2/questions/mirror")
async def test_errors_are_mirrored_into_the_timeline_where_that_is_asked_for() -> None:
    """chat-state: "mirroring errors into the timeline is an option of the client, off by default"."""
    async with rig(mirror_errors=True) as chat:
        await chat.manager.connect(CONV)
        chat.server.sockets[0].send("not json")
        await chat.until(lambda: chat.errors)
        (error,) = chat.errors
        assert chat.entities[error.id].kind == "error"
        await chat.manager.aclose()
        chat.store.dispatch(actions.push_error("late", kind="ws_error", stage="stream"))
        assert selectors.select_timeline_entities(chat.store.state, "late") == ()
    async with rig() as chat:
        await chat.manager.connect(CONV)
        chat.server.sockets[0].send("not json")
        await chat.until(lambda: chat.errors)
        assert chat.entities == {}


async def test_errors_prompts_and_frames_are_in_the_event_log() -> None:
    """seed-2: "structured error debug panel usage"."""
    async with rig() as chat:
        await chat.manager.connect(CONV)
        await chat.manager.send(CONV, "hello")
        chat.server.sockets[0].send("not json")
        await chat.until(lambda: chat.errors)
        families = {entry.family for entry in chat.log.entries(CONV)}
        assert families == {"lifecycle", "prompt", "llm", "timeline", "error"}
        (entry,) = chat.log.entries(CONV, ["error"])
        assert entry.payload["kind"] == "sem_decode_error"
