"""Chat sessions in a runner, in virtual time: prompts, outputs until they are stored, every way to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.unit.runner.running_runner import AGENT, RunningRunner, running_runner
from tests.unit.runner.scripted_children import ScriptedChild
from voicethere.core.session.early import MAX_EARLY_INPUTS
from voicethere.roles.runner.chat_leg import GATHER_SECONDS
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire import ipc
from voicethere.wire.control_channel import EndReason
from voicethere.wire.queue import ErrorItem, SessionEndedItem
from voicethere.wire.relay import (
    CancelSession,
    ChatBody,
    ChatClosed,
    ChatFailure,
    ChatMessage,
    ChatOutput,
    ChatPassed,
    ChatPrompt,
    ChatPromptTaken,
    ChatStreamEnd,
    ChatStreamStart,
    ChatStreamText,
    ChatTaken,
    DeployedAgent,
    EndSession,
    RoomClosed,
    SignalToPeer,
    TokenWanted,
)
from voicethere.wire.settings import AgentCrashPolicy, SessionSettings


class Chat:
    """The chat session `s`, live, on a runner that serves nothing else."""

    def __init__(self, bench: RunningRunner) -> None:
        self.bench = bench
        self.gateway = bench.gateway

    @property
    def child(self) -> ScriptedChild:
        return self.bench.sandbox.children[-1]

    def prompts(self) -> list[str]:
        """What the newest child was prompted."""
        raws = [message.raw for message in self.child.of(ipc.DataChannelMessage)]
        messages = [msgspec.json.decode(raw) for raw in raws]
        assert all(message["type"] == "chat" for message in messages)
        return [message["text"] for message in messages]

    def send(self, number: int) -> None:
        """The agent's `send_to_client`."""
        self.child.say(ipc.SendToClient(session_id="s", payload=str(number)))

    def sent(self) -> list[int]:
        """Which of those are stored."""
        return [int(body.payload) for body in self.gateway.of("s", ChatPassed)]

    def raises(self) -> None:
        self.child.say(
            ipc.AgentError(
                session_id="s", hook="on_data_channel_message", message="ValueError: no", stack="…"
            )
        )

    async def ended(self, seconds: float = 300.0) -> tuple[list[tuple[str, str]], str | None]:
        """The ids and codes of the rows, and the reason of the end."""
        async with asyncio.timeout(seconds):
            while self.bench.runner.hosted():  # noqa: ASYNC110 -- nobody tells, and the time is made up
                await asyncio.sleep(0.1)
        rows, reason = [], None
        for item in await self.bench.queued():
            match item:
                case ErrorItem(record=record):
                    rows.append((record.id, record.code.value))
                case SessionEndedItem(end_reason=end_reason):
                    reason = end_reason
        return rows, reason

    def closing(self) -> list[tuple[str, str] | str]:
        """The failures that are stored, by id and code, and the reason of a `ChatClosed`."""
        return [_told(body) for body in self.gateway.said("s") if isinstance(body, ChatFailure | ChatClosed)]


def _told(body: ChatBody) -> tuple[str, str] | str:
    if isinstance(body, ChatFailure):
        return body.error_id, body.envelope.code
    assert isinstance(body, ChatClosed)
    return body.end_reason.value


@contextlib.asynccontextmanager
async def chatting(
    *, hooks: tuple[str, ...] = ("on_data_channel_message",), agent: DeployedAgent = AGENT, **settings: Any
) -> AsyncIterator[Chat]:
    async with running_runner(**settings) as bench:
        bench.sandbox.hooks = hooks
        await bench.chat("s", agent=agent)
        yield Chat(bench)


def changed(**changes: Any) -> DeployedAgent:
    return msgspec.structs.replace(AGENT, **changes)


# ------------------------------------------------------------------ prompts


@in_virtual_time
async def test_a_chat_session_is_live_at_once_and_needs_no_client_to_join() -> None:
    async with chatting() as chat:
        (start,) = chat.child.of(ipc.SessionStart)
        assert start.session_id == "s"
        await asyncio.sleep(3600)  # nobody is waited for
        assert chat.bench.runner.hosted() == ["s"]
        assert chat.bench.clients == {}
        assert chat.bench.of(TokenWanted) == []
        assert chat.bench.of(SignalToPeer) == []


@pytest.mark.states("sem-chat/gateway/prompt")
@in_virtual_time
async def test_a_prompt_is_a_chat_message_for_the_agent() -> None:
    async with chatting() as chat:
        await chat.gateway.prompt("s", 'quotes " and 🙂')
        await asyncio.sleep(0.1)
        assert chat.prompts() == ['quotes " and 🙂']
        assert chat.gateway.prompts_taken("s") == 1


@in_virtual_time
async def test_a_prompt_that_is_repeated_is_taken_once_and_answered_again() -> None:
    async with chatting() as chat:
        await chat.gateway.prompt("s", "one")
        await chat.gateway.until(lambda: chat.gateway.prompts_taken("s") == 1)
        for _ in range(3):
            await chat.gateway.say_prompt("s", 1)
        await asyncio.sleep(0.1)
        assert chat.prompts() == ["one"]
        assert chat.bench.of(ChatPromptTaken) == [ChatPromptTaken(session_id="s", number=1)] * 4


@in_virtual_time
async def test_a_prompt_that_comes_before_its_turn_is_not_taken() -> None:
    async with chatting() as chat:
        await chat.bench.tell(ChatPrompt(session_id="s", number=2, text="two"))
        assert (chat.prompts(), chat.bench.of(ChatPromptTaken)) == ([], [])
        await chat.bench.tell(
            ChatPrompt(session_id="s", number=1, text="one"), ChatPrompt(session_id="s", number=2, text="two")
        )
        await asyncio.sleep(0.1)
        assert chat.prompts() == ["one", "two"]
        assert chat.bench.of(ChatPromptTaken)[-1].number == 2


@in_virtual_time
async def test_prompts_wait_for_an_agent_that_is_not_there_yet_and_are_not_taken_past_what_is_kept() -> None:
    async with running_runner() as bench:
        bench.sandbox.seconds = 5.0
        await bench.chat("s")
        chat = Chat(bench)
        for number in range(MAX_EARLY_INPUTS + 2):
            await chat.gateway.prompt("s", str(number))
            await asyncio.sleep(0.001)
        assert chat.gateway.prompts_taken("s") == 0
        await asyncio.sleep(6)
        assert chat.gateway.prompts_taken("s") == MAX_EARLY_INPUTS
        await chat.gateway.say_prompts_again("s")
        await asyncio.sleep(0.1)
        assert chat.prompts() == [str(number) for number in range(MAX_EARLY_INPUTS + 2)]


@in_virtual_time
async def test_a_prompt_that_no_agent_was_given_is_left_for_the_next_session() -> None:
    async with running_runner() as bench:
        bench.sandbox.seconds = 5.0
        await bench.chat("s")
        chat = Chat(bench)
        await chat.gateway.prompt("s", "hello")
        await bench.tell(EndSession(session_id="s", end_reason=EndReason.RUNNER_SHUTDOWN))
        assert await chat.ended() == ([], "runner_shutdown")
        assert chat.gateway.prompts_taken("s") == 0
        assert [output.prompts for output in bench.of(ChatOutput)] == [0]


@in_virtual_time
async def test_a_prompt_is_given_and_taken_when_the_one_before_it_is_dealt_with() -> None:
    async with chatting() as chat:
        chat.child.handles = False
        for text in ("one", "two"):
            await chat.gateway.prompt("s", text)
        await asyncio.sleep(0.1)
        assert (chat.prompts(), chat.gateway.prompts_taken("s")) == (["one"], 0)
        chat.child.begin_hook()
        chat.child.begin_hook()  # nobody gave it another one
        await asyncio.sleep(0.1)
        await chat.gateway.say_prompt("s", 2)
        await asyncio.sleep(0.1)
        assert (chat.prompts(), chat.gateway.prompts_taken("s")) == (["one"], 1)
        chat.child.end_hook()
        chat.child.end_hook()
        await asyncio.sleep(0.1)
        assert (chat.prompts(), chat.gateway.prompts_taken("s")) == (["one", "two"], 1)
        chat.child.begin_hook()
        await asyncio.sleep(0.1)
        assert chat.gateway.prompts_taken("s") == 2


@in_virtual_time
async def test_prompts_wait_for_a_busy_agent_and_are_not_taken_past_what_is_kept() -> None:
    async with chatting() as chat:
        chat.child.handles = False
        for number in range(MAX_EARLY_INPUTS + 2):
            await chat.gateway.prompt("s", str(number))
        chat.child.handles = True
        chat.child.begin_hook()
        chat.child.end_hook()
        await asyncio.sleep(1)
        assert chat.gateway.prompts_taken("s") == MAX_EARLY_INPUTS
        await chat.gateway.say_prompts_again("s")
        await asyncio.sleep(0.1)
        assert chat.prompts() == [str(number) for number in range(MAX_EARLY_INPUTS + 2)]


@pytest.mark.states("sem-chat/gateway/next-session")
@in_virtual_time
async def test_an_agent_that_hangs_up_as_its_session_starts_takes_no_prompt() -> None:
    async with running_runner() as bench:
        bench.sandbox.starts = False
        await bench.chat("s")
        chat = Chat(bench)
        await chat.gateway.prompt("s", "hello")
        await asyncio.sleep(0.1)
        chat.child.say(ipc.DisconnectClient(session_id="s"))
        chat.child.say(ipc.SessionStartAck(session_id="s"))
        assert await chat.ended() == ([], "agent_disconnected")
        assert (chat.prompts(), chat.gateway.prompts_taken("s")) == ([], 0)
        assert [(output.body, output.prompts) for output in bench.of(ChatOutput)] == [
            (ChatClosed(end_reason=EndReason.AGENT_DISCONNECTED), 0)
        ]


@pytest.mark.parametrize("begun", [False, True], ids=["another was given", "another has begun"])
@in_virtual_time
async def test_an_agent_that_hangs_up_takes_no_prompt_that_it_has_not_begun_with(begun: bool) -> None:
    async with chatting() as chat:
        chat.child.handles = False
        for text in ("one", "two", "three"):
            await chat.gateway.prompt("s", text)
        await asyncio.sleep(0.1)
        chat.child.begin_hook()
        chat.child.end_hook()
        await asyncio.sleep(0.1)
        assert chat.prompts() == ["one", "two"]
        if begun:
            chat.child.begin_hook()
        chat.child.say(ipc.DisconnectClient(session_id="s"))
        if not begun:
            chat.child.begin_hook()  # it did not know yet; what it answers is not said any more
        chat.child.end_hook()
        assert await chat.ended() == ([], "agent_disconnected")
        taken = 2 if begun else 1
        assert (chat.prompts(), chat.gateway.prompts_taken("s")) == (["one", "two"], taken)
        assert chat.bench.of(ChatOutput)[-1].prompts == taken


@in_virtual_time
async def test_sessions_that_share_a_child_take_each_their_own_prompts() -> None:
    agent = changed(shared_child_per_session=True)
    async with running_runner() as bench:
        await bench.chat("s", "t", agent=agent)
        (child,) = bench.sandbox.children
        child.handles = False
        for session_id in ("s", "t"):
            await bench.gateway.prompt(session_id, f"hello {session_id}")
        await asyncio.sleep(0.1)
        child.begin_hook("t")
        await asyncio.sleep(0.1)
        assert [bench.gateway.prompts_taken(session_id) for session_id in ("s", "t")] == [0, 1]


@in_virtual_time
async def test_every_output_tells_how_many_prompts_were_taken_before_it() -> None:
    async with chatting() as chat:
        chat.send(1)
        await chat.gateway.prompt("s", "hello")
        await chat.gateway.prompt("s", "hello?")
        await chat.gateway.until(lambda: chat.gateway.prompts_taken("s") == 2)
        chat.child.speak("Hi.")
        chat.child.say(ipc.DisconnectClient(session_id="s"))
        await chat.ended()
        told = {output.number: output.prompts for output in chat.bench.of(ChatOutput)}
        assert told == {1: 0, 2: 2, 3: 2}


@in_virtual_time
async def test_who_prompts_a_session_that_is_not_here_is_told_so() -> None:
    async with running_runner() as bench:
        await bench.tell(ChatTaken(session_id="gone", number=1))
        assert bench.of(RoomClosed) == []
        await bench.tell(ChatPrompt(session_id="gone", number=1, text="hello"))
        assert bench.of(RoomClosed) == [RoomClosed(session_id="gone")]
        assert bench.of(ChatPromptTaken) == []


@in_virtual_time
async def test_prompts_for_a_session_with_a_room_come_to_nothing() -> None:
    async with running_runner() as bench:
        await bench.live("s")
        await bench.tell(
            ChatPrompt(session_id="s", number=1, text="hello"), ChatTaken(session_id="s", number=1)
        )
        assert bench.of(ChatPromptTaken) == []
        assert bench.runner.hosted() == ["s"]


# ------------------------------------------------------------------ outputs


@in_virtual_time
async def test_what_the_agent_sends_is_passed_on_in_order() -> None:
    async with chatting() as chat:
        for number in range(300):  # far more than a window
            chat.send(number)
        await chat.gateway.until(lambda: len(chat.sent()) == 300)
        assert chat.sent() == list(range(300))
        assert set(chat.gateway.saying.values()) == {1}


@pytest.mark.states("sem-chat/gateway/speak")
@in_virtual_time
async def test_what_the_agent_says_is_a_message_of_the_conversation() -> None:
    async with chatting() as chat:
        number = chat.child.speak("Hello.")
        chat.child.speak("How are you?")
        await chat.gateway.until(lambda: len(chat.gateway.said("s")) == 2)
        assert chat.gateway.said("s") == [
            ChatMessage(speech_id="s-1", text="Hello."),
            ChatMessage(speech_id="s-2", text="How are you?"),
        ]
        await asyncio.sleep(0.1)
        assert chat.child.of(ipc.SpeechDone)[0] == ipc.SpeechDone(
            session_id="s", speech_id=number, interrupted=False
        )


@pytest.mark.states("sem-chat/gateway/speak-stream")
@in_virtual_time
async def test_a_stream_is_passed_on_as_it_comes_in_fewer_parts_the_slower_it_is_stored() -> None:
    async with chatting() as chat:
        chat.child.say(ipc.SpeakStart(session_id="s", speech_id=1))
        chat.child.say(ipc.SpeakText(session_id="s", speech_id=1, text="a"))
        await chat.gateway.until(lambda: len(chat.gateway.said("s")) == 2)
        chat.gateway.away = True
        for text in "bcde":
            chat.child.say(ipc.SpeakText(session_id="s", speech_id=1, text=text))
            await asyncio.sleep(2 * GATHER_SECONDS)
        chat.gateway.away = False
        await chat.gateway.until(lambda: len(chat.gateway.said("s")) == 4)
        chat.child.say(ipc.SpeakEnd(session_id="s", speech_id=1, complete=True))
        await chat.gateway.until(lambda: len(chat.gateway.said("s")) == 5)
        assert chat.gateway.said("s") == [
            ChatStreamStart(speech_id="s-1"),
            ChatStreamText(speech_id="s-1", delta="a", cumulative="a"),
            ChatStreamText(speech_id="s-1", delta="b", cumulative="ab"),
            ChatStreamText(speech_id="s-1", delta="cde", cumulative="abcde"),
            ChatStreamEnd(speech_id="s-1", text="abcde", complete=True),
        ]


@in_virtual_time
async def test_what_follows_fast_is_one_part_the_first_word_and_the_end_wait_for_nothing() -> None:
    async with chatting() as chat:
        began = asyncio.get_running_loop().time()
        chat.child.say(ipc.SpeakStart(session_id="s", speech_id=1))
        for text in "abcdefghi":
            chat.child.say(ipc.SpeakText(session_id="s", speech_id=1, text=text))
            await asyncio.sleep(GATHER_SECONDS / 4)
        chat.child.say(ipc.SpeakEnd(session_id="s", speech_id=1, complete=True))
        await chat.gateway.until(lambda: isinstance(chat.gateway.said("s")[-1], ChatStreamEnd))
        assert asyncio.get_running_loop().time() - began < 2.75 * GATHER_SECONDS
        parts = chat.gateway.of("s", ChatStreamText)
        assert parts[0].cumulative == "a"
        assert "".join(part.delta for part in parts) == parts[-1].cumulative == "abcdefghi"
        assert 3 <= len(parts) <= 4


@in_virtual_time
async def test_what_the_agent_sends_between_two_parts_of_a_stream_stays_between_them() -> None:
    async with chatting() as chat:
        chat.child.say(ipc.SpeakStart(session_id="s", speech_id=1))
        for text in "ab":
            chat.child.say(ipc.SpeakText(session_id="s", speech_id=1, text=text))
        chat.send(7)
        chat.child.say(ipc.SpeakText(session_id="s", speech_id=1, text="c"))
        await chat.gateway.until(lambda: len(chat.gateway.said("s")) == 5)
        assert chat.gateway.said("s")[1:] == [
            ChatStreamText(speech_id="s-1", delta="a", cumulative="a"),
            ChatStreamText(speech_id="s-1", delta="b", cumulative="ab"),
            ChatPassed(payload="7"),
            ChatStreamText(speech_id="s-1", delta="c", cumulative="abc"),
        ]


@pytest.mark.states("sem-chat/text/end-before-error")
@pytest.mark.parametrize("killed", [False, True])
@in_virtual_time
async def test_a_stream_that_is_cut_off_has_ended_before_the_error_is_told(killed: bool) -> None:
    async with chatting() as chat:
        chat.child.say(ipc.SpeakStart(session_id="s", speech_id=1))
        chat.child.say(ipc.SpeakText(session_id="s", speech_id=1, text="I thi"))
        await chat.gateway.until(lambda: len(chat.gateway.said("s")) == 2)
        if killed:
            chat.child.die()
        else:
            chat.raises()
        rows, _ = await chat.ended()
        assert chat.gateway.said("s")[2] == ChatStreamEnd(speech_id="s-1", text="I thi", complete=False)
        assert chat.closing() == [rows[0], "agent_error"]
        assert len(chat.gateway.said("s")) == 5


@in_virtual_time
async def test_binary_data_is_dropped_with_one_line_in_the_agents_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with chatting() as chat:
        for _ in range(3):
            chat.child.say(ipc.SendBinaryToClient(session_id="s", data=b"1", channel="sync"))
        chat.send(1)
        await chat.gateway.until(lambda: chat.sent() == [1])
        await asyncio.sleep(0.1)
    said = capsys.readouterr()
    assert (said.out + said.err).count("send_binary_to_client does nothing in a chat session") == 1


# ------------------------------------------------------------------ gateways that are away


@pytest.mark.states("sem-chat/gateway/restart")
@in_virtual_time
async def test_nothing_is_lost_while_no_gateway_is_there_for_a_moment() -> None:
    async with chatting() as chat:
        chat.gateway.away = True
        chat.send(1)
        await asyncio.sleep(3)
        chat.send(2)
        again = [output.again for output in chat.bench.of(ChatOutput) if output.number == 1]
        assert again[0] is False
        assert set(again[1:]) == {True}
        assert 2 <= len(again) <= 4  # every second
        chat.gateway.away = False
        await chat.gateway.until(lambda: chat.sent() == [1, 2])
        assert chat.bench.runner.hosted() == ["s"]


@in_virtual_time
async def test_a_conversation_survives_gateways_that_are_away_for_a_minute() -> None:
    async with chatting() as chat:
        for _ in range(2):
            chat.gateway.away = True
            before = len(chat.sent())
            for number in range(before, before + 100):
                chat.send(number)
            await asyncio.sleep(60)
            chat.gateway.away = False
            await chat.gateway.until(lambda count=before + 100: len(chat.sent()) == count)
        await asyncio.sleep(600)
        assert chat.sent() == list(range(200))
        assert chat.bench.runner.hosted() == ["s"]


@in_virtual_time
async def test_a_session_that_is_stored_nowhere_ends_and_what_was_lost_is_an_error() -> None:
    async with chatting() as chat:
        chat.gateway.away = True
        chat.send(1)
        await asyncio.sleep(100)
        assert chat.bench.runner.hosted() == ["s"]
        rows, reason = await chat.ended()
        assert ([code for _, code in rows], reason) == (["SESSION_END_FAILED"], "client_disconnected")


@in_virtual_time
async def test_a_session_that_says_nothing_needs_no_gateway() -> None:
    async with chatting() as chat:
        chat.gateway.away = True
        await asyncio.sleep(600)
        assert chat.bench.runner.hosted() == ["s"]
        await chat.bench.tell(EndSession(session_id="s", end_reason=EndReason.RUNNER_SHUTDOWN))
        # That it ended is in its row: nothing is lost.
        assert await chat.ended() == ([], "runner_shutdown")


@in_virtual_time
async def test_more_than_is_kept_ends_the_session_with_an_error() -> None:
    async with chatting() as chat:
        chat.gateway.away = True
        for number in range(6000):
            chat.send(number)
            await asyncio.sleep(0.002)  # as fast as an agent may
        rows, reason = await chat.ended()
        assert [code for _, code in rows] == ["RUNNER_INTERNAL", "SESSION_END_FAILED"]
        assert reason == "error"
        outputs = {number for _, number in chat.gateway.saying}
        assert max(outputs) <= 40  # it was not all sent, either


@in_virtual_time
async def test_the_error_for_what_was_too_much_is_told_behind_what_was_kept() -> None:
    async with chatting() as chat:
        chat.gateway.away = True
        for number in range(4500):
            chat.send(number)
            await asyncio.sleep(0.002)
        chat.gateway.away = False
        rows, _ = await chat.ended()
        assert [code for _, code in rows] == ["RUNNER_INTERNAL"]
        assert chat.sent() == list(range(4096))
        assert chat.closing() == [rows[0], "error"]


# ------------------------------------------------------------------ failures


@pytest.mark.states("sem-chat/gateway/same-error-flow", "sem-chat/gateway/error-id")
@in_virtual_time
async def test_a_handler_that_raises_is_told_with_its_rows_id_and_ends_the_session() -> None:
    async with chatting() as chat:
        chat.send(1)
        chat.raises()
        rows, reason = await chat.ended()
        assert [code for _, code in rows] == ["AGENT_HANDLER_FAILED"]
        assert chat.closing() == [rows[0], "agent_error"]
        assert reason == "agent_error"
        assert chat.sent() == [1]


@in_virtual_time
async def test_a_prompt_that_no_hook_hears_is_an_error_and_the_session_goes_on() -> None:
    """Nobody would ever answer the user, who must not wait for it."""
    async with chatting(hooks=("on_session_start", "on_user_speech_final")) as chat:
        chat.child.speak("Welcome.")
        for text in ("hello", "hello?"):
            await chat.gateway.prompt("s", text)
        await chat.gateway.until(lambda: len(chat.gateway.of("s", ChatFailure)) == 2)
        assert chat.gateway.prompts_taken("s") == 2
        assert chat.prompts() == []
        assert chat.bench.runner.hosted() == ["s"]
        told = chat.gateway.of("s", ChatFailure)
        assert {(body.envelope.code, body.envelope.recoverable) for body in told} == {
            ("AGENT_HANDLER_FAILED", True)
        }
        records = [item.record for item in await chat.bench.queued() if isinstance(item, ErrorItem)]
        assert [record.id for record in records] == [body.error_id for body in told]
        assert all("on_data_channel_message" in record.message for record in records)
        assert chat.gateway.said("s")[0] == ChatMessage(speech_id="s-1", text="Welcome.")


@in_virtual_time
async def test_a_failure_while_no_gateway_is_there_is_told_once_when_one_is_back() -> None:
    async with chatting() as chat:
        chat.gateway.away = True
        chat.send(1)
        chat.raises()
        await asyncio.sleep(20)
        chat.gateway.away = False
        rows, _ = await chat.ended()
        assert [code for _, code in rows] == ["AGENT_HANDLER_FAILED"]
        assert chat.sent() == [1]
        assert chat.closing() == [rows[0], "agent_error"]


@in_virtual_time
async def test_a_failure_that_no_gateway_ever_hears_of_is_stored() -> None:
    async with chatting() as chat:
        chat.gateway.away = True
        chat.raises()
        rows, reason = await chat.ended()
        assert ([code for _, code in rows], reason) == (["AGENT_HANDLER_FAILED"], "agent_error")


@in_virtual_time
async def test_a_child_that_is_killed_ends_the_session_with_its_error() -> None:
    async with chatting() as chat:
        chat.child.die()
        rows, reason = await chat.ended()
        assert [code for _, code in rows] == ["AGENT_CHILD_CRASHED"]
        assert chat.closing() == [rows[0], "agent_error"]
        assert reason == "agent_error"


@in_virtual_time
async def test_the_conversation_goes_on_with_another_child_where_the_project_wants_that() -> None:
    agent = changed(agent_crash_policy=AgentCrashPolicy.RESTART_CHILD)
    async with chatting(agent=agent) as chat:
        chat.child.speak("before")
        await chat.gateway.until(lambda: len(chat.gateway.said("s")) == 1)
        chat.child.die()
        await chat.gateway.until(lambda: len(chat.gateway.said("s")) == 2)
        await chat.gateway.prompt("s", "are you there?")
        await asyncio.sleep(0.5)
        chat.child.speak("after")
        await chat.gateway.until(lambda: len(chat.gateway.said("s")) == 3)
        first, failure, second = chat.gateway.said("s")
        assert first == ChatMessage(speech_id="s-1", text="before")
        assert second == ChatMessage(speech_id="s-2", text="after")  # the new child counts from 1, too
        assert isinstance(failure, ChatFailure)
        assert failure.envelope.recoverable
        assert len(chat.bench.sandbox.children) == 2
        assert chat.prompts() == ["are you there?"]


@pytest.mark.parametrize("begun", [False, True])
@in_virtual_time
async def test_another_child_is_given_the_prompts_that_the_dead_one_had_not_begun_with(begun: bool) -> None:
    async with chatting(agent=changed(agent_crash_policy=AgentCrashPolicy.RESTART_CHILD)) as chat:
        chat.child.handles = False
        for text in ("one", "two"):
            await chat.gateway.prompt("s", text)
        if begun:
            chat.child.begin_hook()
        chat.child.die()
        await chat.gateway.prompt("s", "three")
        await chat.gateway.until(lambda: chat.gateway.prompts_taken("s") == 3)
        assert len(chat.bench.sandbox.children) == 2
        assert chat.prompts() == (["two", "three"] if begun else ["one", "two", "three"])
        (told,) = chat.gateway.of("s", ChatFailure)
        assert (told.envelope.code, told.envelope.recoverable) == ("AGENT_CHILD_CRASHED", True)


@in_virtual_time
async def test_a_voice_agents_conversation_has_no_crash_message() -> None:
    settings = SessionSettings(idle_timeout_enabled=False, error_message="I am sorry.")
    async with chatting(agent=changed(settings=settings)) as chat:
        chat.raises()
        rows, _ = await chat.ended(seconds=10)
        assert chat.closing() == [rows[0], "agent_error"]
        assert chat.gateway.of("s", ChatMessage) == []


# ------------------------------------------------------------------ other ends


IDLE = changed(settings=SessionSettings(data_only_idle_timeout_seconds=60))


@pytest.mark.states("sem-chat/gateway/same-limits")
@in_virtual_time
async def test_a_conversation_that_idles_ends_and_prompts_are_activity() -> None:
    async with chatting(agent=IDLE) as chat:
        for number in range(5):
            await chat.gateway.prompt("s", str(number))
            await asyncio.sleep(50)
        assert chat.bench.runner.hosted() == ["s"]
        rows, reason = await chat.ended(seconds=30)
        assert [code for _, code in rows] == ["SESSION_IDLE_TIMEOUT"]
        assert chat.closing() == [rows[0], "idle_timeout"]
        assert reason == "idle_timeout"


@pytest.mark.states("sem-chat/gateway/next-session")
@in_virtual_time
async def test_a_prompt_that_comes_while_the_session_ends_is_left_for_the_next() -> None:
    async with chatting(agent=IDLE, hooks=("on_data_channel_message", "on_idle_timeout")) as chat:
        await asyncio.sleep(61)
        assert chat.child.of(ipc.IdleTimeout)
        await chat.gateway.prompt("s", "too late")
        await asyncio.sleep(0.1)
        assert (chat.prompts(), chat.gateway.prompts_taken("s")) == ([], 0)
        chat.child.say(ipc.IdleTimeoutDone(session_id="s"))
        _, reason = await chat.ended(seconds=30)
        assert reason == "idle_timeout"
        await chat.gateway.say_prompts_again("s")
        await asyncio.sleep(0.1)
        assert chat.gateway.prompts_taken("s") == 0
        assert RoomClosed(session_id="s") in chat.bench.said


@in_virtual_time
async def test_an_agent_may_end_the_conversations_session() -> None:
    async with chatting() as chat:
        chat.child.speak("Goodbye.")
        chat.child.say(ipc.DisconnectClient(session_id="s"))
        assert await chat.ended() == ([], "agent_disconnected")
        assert chat.gateway.said("s") == [
            ChatMessage(speech_id="s-1", text="Goodbye."),
            ChatClosed(end_reason=EndReason.AGENT_DISCONNECTED),
        ]


@pytest.mark.parametrize("draining", [False, True])
@in_virtual_time
async def test_a_deploy_or_a_runner_that_leaves_ends_it_in_order(draining: bool) -> None:
    async with chatting() as chat:
        chat.send(1)
        if draining:
            chat.bench.runner.drain()
        else:
            await chat.bench.tell(EndSession(session_id="s", end_reason=EndReason.RUNNER_SHUTDOWN))
        assert await chat.ended() == ([], "runner_shutdown")
        assert chat.closing() == ["runner_shutdown"]
        assert chat.child.of(ipc.SessionEnd)


@pytest.mark.parametrize("streaming", [False, True])
@in_virtual_time
async def test_an_answer_that_a_deploy_or_a_leaving_runner_cuts_off_is_told(streaming: bool) -> None:
    async with chatting() as chat:
        if streaming:
            chat.child.say(ipc.SpeakStart(session_id="s", speech_id=1))
            chat.child.say(ipc.SpeakText(session_id="s", speech_id=1, text="Once upon"))
        else:
            chat.child.handles = False
            await chat.gateway.prompt("s", "a long question")
            await asyncio.sleep(0.1)
            chat.child.begin_hook()
        await asyncio.sleep(1)
        await chat.bench.tell(EndSession(session_id="s", end_reason=EndReason.RUNNER_SHUTDOWN))
        (row,), reason = await chat.ended()
        assert (row[1], reason) == ("RUNNER_INTERNAL", "runner_shutdown")
        (failure,) = [body for body in chat.gateway.said("s") if isinstance(body, ChatFailure)]
        assert (failure.error_id, failure.envelope.recoverable) == (row[0], True)
        assert chat.closing()[-1] == "runner_shutdown"


@in_virtual_time
async def test_a_service_may_give_it_up() -> None:
    async with chatting() as chat:
        await chat.bench.tell(CancelSession(session_id="s"))
        assert await chat.ended() == ([], "client_disconnected")
        assert chat.closing() == ["client_disconnected"]


@in_virtual_time
async def test_sessions_of_one_runner_do_not_hold_each_other_up() -> None:
    async with running_runner() as bench:
        await bench.chat("s", "t")
        for session_id, child in zip("st", bench.sandbox.children, strict=True):
            child.speak(f"I am {session_id}", session_id)
        await bench.gateway.until(lambda: all(bench.gateway.said(name) for name in "st"))
        assert [bench.gateway.said(name) for name in "st"] == [
            [ChatMessage(speech_id=f"{name}-1", text=f"I am {name}")] for name in "st"
        ]
