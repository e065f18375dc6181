"""`agent_crash_policy`: what a session does when its agent's process is gone."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.runner.hosted_call import HostedCall
from tests.unit.runner.scripted_children import ScriptedSandbox
from voicethere.core.session.early import MAX_EARLY_INPUTS, MAX_EARLY_SIZE
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire import ipc
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import AgentCrashPolicy, SessionSettings

RESTART = AgentCrashPolicy.RESTART_CHILD
NEVER_IDLE = SessionSettings(idle_timeout_enabled=False)


@pytest.mark.parametrize("mode", list(Mode))
@in_virtual_time
async def test_by_default_the_session_ends(mode: Mode) -> None:
    async with HostedCall(mode) as call:
        call.child.die()
        await call.host.over.wait()
        assert call.errors() == [("AGENT_CHILD_CRASHED", False)]
        assert await call.stored() == ([("AGENT_CHILD_CRASHED", False)], "agent_error")
        assert len(call.sandbox.children) == 1


@in_virtual_time
async def test_the_session_goes_on_with_a_new_child() -> None:
    async with HostedCall(agent_crash_policy=RESTART) as call:
        before = call.child
        before.speak("words that nobody will hear to their end")
        await asyncio.sleep(1)
        before.die()
        call.send({"type": "chat", "text": "are you there?"})
        await call.moment("session_error")
        call.send({"type": "chat", "text": "hello?"})
        await asyncio.sleep(0.05)
        assert call.errors() == [("AGENT_CHILD_CRASHED", True)]
        assert call.child is not before
        starts = [child.of(ipc.SessionStart)[0] for child in call.sandbox.children]
        assert starts[0] == starts[1]
        assert starts[1].customer_context == {"user": "s"}
        kinds = [type(message) for message in call.child.got]
        assert kinds[:2] == [ipc.LoadAgent, ipc.SessionStart]
        chats = [
            message.raw for child in call.sandbox.children for message in child.of(ipc.DataChannelMessage)
        ]
        assert [raw for raw in chats if "hello?" in raw] == chats[-1:]
    assert await call.stored() == ([("AGENT_CHILD_CRASHED", True)], "client_close_signal")


@in_virtual_time
async def test_the_new_agent_speaks_behind_the_crash_message_and_is_not_told_of_the_old_ones_speech() -> None:
    settings = SessionSettings(error_message="sorry")
    async with HostedCall(settings=settings, agent_crash_policy=RESTART) as call:
        call.child.speak("a long and boring story")
        await asyncio.sleep(0.5)
        call.child.die()
        await call.moment("session_error")
        await asyncio.sleep(0.05)
        greeting = call.child.speak("hello again")
        await asyncio.sleep(5)
        assert [message["text"] for message in call.told("agent_speak")] == [
            "a long and boring story",
            "sorry",
            "hello again",
        ]
        assert call.child.of(ipc.SpeechDone) == [
            ipc.SpeechDone(session_id="s", speech_id=greeting, interrupted=False)
        ]


@in_virtual_time
async def test_who_speaks_over_the_crash_message_loses_nothing_of_the_agents() -> None:
    settings = SessionSettings(error_message="sorry " * 10)
    async with HostedCall(settings=settings, agent_crash_policy=RESTART, heard=["hello"] * 9) as call:
        call.child.die()
        await call.moment("session_error")
        await asyncio.sleep(0.05)
        greeting = call.child.speak("hello again")
        await call.talk(3.0)
        assert "barge_in" not in call.speech_events()
        await asyncio.sleep(10)
        assert call.child.of(ipc.SpeechDone) == [
            ipc.SpeechDone(session_id="s", speech_id=greeting, interrupted=False)
        ]
        assert "user_speech_final" in call.child.heard()


@in_virtual_time
async def test_three_restarts_a_minute_and_not_a_fourth() -> None:
    async with HostedCall(Mode.DATA, agent_crash_policy=RESTART) as call:
        for _ in range(4):
            call.child.die()
            await asyncio.sleep(1)
        await call.host.over.wait()
        assert call.errors() == [("AGENT_CHILD_CRASHED", True)] * 3 + [("AGENT_CHILD_CRASHED", False)]
        assert len(call.sandbox.children) == 4
    rows, reason = await call.stored()
    assert (len(rows), reason) == (4, "agent_error")


@in_virtual_time
async def test_now_and_then_is_no_reason_to_give_up() -> None:
    async with HostedCall(Mode.DATA, settings=NEVER_IDLE, agent_crash_policy=RESTART) as call:
        for _ in range(10):
            call.child.die()
            await asyncio.sleep(21)
        assert call.errors() == [("AGENT_CHILD_CRASHED", True)] * 10
        assert not call.host.over.is_set()


@in_virtual_time
async def test_a_bundle_that_cannot_be_loaded_is_not_loaded_for_ever() -> None:
    sandbox = ScriptedSandbox(loads=False)
    async with HostedCall(Mode.DATA, sandbox=sandbox, agent_crash_policy=RESTART) as call:
        await call.connect()
        await call.host.over.wait()
        assert call.errors() == [("AGENT_CHILD_CRASHED", False)]
        assert len(sandbox.children) == 1


@in_virtual_time
async def test_what_comes_while_the_agent_starts_again_is_handed_over_in_order() -> None:
    async with HostedCall(Mode.DATA, agent_crash_policy=RESTART) as call:
        call.sandbox.seconds = 5.0
        call.child.die()
        await call.moment("session_error")
        texts = [f'{{"n":{number}}}' for number in range(300)]
        for text in texts:
            call.client.events.control(text)
        assert len(call.sandbox.children) == 1
        await asyncio.sleep(6)
        given = [message.raw for message in call.child.of(ipc.DataChannelMessage)]
        assert given == texts[:MAX_EARLY_INPUTS]
        assert len(call.told("message_refused")) == len(texts) - MAX_EARLY_INPUTS


@in_virtual_time
async def test_what_waits_for_an_agent_is_bounded_by_its_size_too() -> None:
    async with HostedCall(Mode.DATA, agent_crash_policy=RESTART) as call:
        call.sandbox.seconds = 5.0
        call.child.die()
        await call.moment("session_error")
        for _ in range(20):
            call.client.events.sync(bytes(256 * 1024))
        await asyncio.sleep(6)
        given = call.child.of(ipc.DataChannelBinary)
        assert sum(len(message.data) for message in given) == MAX_EARLY_SIZE
        assert len(call.told("message_refused")) == 20 - len(given)
