"""An agent that says what it is still writing: by voice, on a data channel and in a chat, up to its end."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.unit.runner.hosted_call import HostedCall
from tests.unit.runner.running_runner import AGENT, running_runner
from voicethere.roles.runner.speaking import MAX_QUEUED_UTTERANCES
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire import ipc
from voicethere.wire.control_channel import EndReason
from voicethere.wire.relay import ChatClosed, ChatMessage, ChatStreamEnd, ChatStreamStart, ChatStreamText
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import AgentCrashPolicy, SessionSettings

HANGS_UP_LATER = ipc.DisconnectClient(session_id="s", more=True)
SENTENCES = ["One is here.", "Two is here.", "And three"]
TEXT = " ".join(SENTENCES)


def said(call: HostedCall) -> list[str]:
    return [message["text"] for message in call.told("agent_speak")]


def outcomes(call: HostedCall, child: int = -1) -> list[tuple[int, bool]]:
    """What the child was told of its speech: number and whether it was interrupted."""
    done = call.sandbox.children[child].of(ipc.SpeechDone)
    return [(message.speech_id, message.interrupted) for message in done]


class TestByVoice:
    @in_virtual_time
    async def test_a_sentence_is_spoken_while_the_next_is_being_written(self) -> None:
        async with HostedCall() as call:
            number = call.child.begin_stream()
            for word in ["One ", "is ", "here", ". "]:
                call.child.write(number, word)
            await asyncio.sleep(0.1)
            assert call.speech_events() == ["agent_speaking_start"]
            assert said(call) == ["One is here."]
            await asyncio.sleep(5)  # a pause of the writer's is none of the stream's end
            call.child.write(number, "Two is here. And three")
            call.child.end_stream(number)
            await asyncio.sleep(5)
            assert said(call) == SENTENCES
            assert call.speech_events() == ["agent_speaking_start", "agent_speaking_end"] * 3
            assert outcomes(call) == [(number, False)]

    @in_virtual_time
    async def test_what_is_said_behind_a_stream_waits_for_its_end(self) -> None:
        async with HostedCall(client_speak_enabled=True) as call:
            first = call.child.begin_stream()
            call.child.write(first, "First. ")
            await asyncio.sleep(1)
            call.send({"type": "speak", "text": "the client's"})
            await asyncio.sleep(1)
            call.child.write(first, "Still first.")
            call.child.end_stream(first)
            second = call.child.begin_stream()
            call.child.write(second, "Second")
            call.child.end_stream(second)
            third = call.child.speak("Third")
            await asyncio.sleep(10)
            assert said(call) == ["First.", "Still first.", "the client's", "Second", "Third"]
            assert outcomes(call) == [(first, False), (second, False), (third, False)]

    @in_virtual_time
    async def test_barge_in_stops_the_sentence_what_waits_and_what_is_yet_to_come(self) -> None:
        async with HostedCall(heard=["hel", "hello"], seconds_per_character=0.3) as call:
            number = call.child.begin_stream()
            call.child.write(number, TEXT)
            await asyncio.sleep(1)
            await call.talk(1.0)
            assert outcomes(call) == [(number, True)]
            call.child.write(number, " and four.")  # was on its way
            call.child.end_stream(number, complete=False)
            answer = call.child.speak("yes?")
            await asyncio.sleep(20)
            assert said(call) == ["One is here.", "yes?"]
            assert outcomes(call)[-1] == (answer, False)
            assert call.speech_events().count("barge_in") == 1

    @in_virtual_time
    async def test_barge_in_stops_a_stream_that_has_nothing_to_say_yet(self) -> None:
        async with HostedCall(heard=["hello"]) as call:
            number = call.child.begin_stream()
            await asyncio.sleep(2)
            await call.talk(1.0)
            assert "barge_in" in call.speech_events()
            assert outcomes(call) == [(number, True)]
            call.child.write(number, TEXT)
            await asyncio.sleep(5)
            assert said(call) == []

    @in_virtual_time
    async def test_a_sentence_that_cannot_be_spoken_costs_that_sentence(self) -> None:
        async with HostedCall() as call:
            call.host._speaker._synthesizer._fails_on = "Two"  # type: ignore[attr-defined]
            number = call.child.begin_stream()
            call.child.write(number, TEXT)
            call.child.end_stream(number)
            await asyncio.sleep(10)
            assert call.speech_events() == [
                "agent_speaking_start",
                "agent_speaking_end",
                "error",
                "agent_speaking_start",
                "agent_speaking_end",
            ]
            assert outcomes(call) == [(number, True)]  # not all of it was heard

    @in_virtual_time
    async def test_a_stream_that_is_given_up_is_said_as_far_as_it_came(self) -> None:
        async with HostedCall() as call:
            number = call.child.begin_stream()
            call.child.write(number, "One is here. Two is")
            call.child.end_stream(number, complete=False)
            await asyncio.sleep(5)
            assert said(call) == ["One is here.", "Two is"]
            assert outcomes(call) == [(number, True)]

    @in_virtual_time
    async def test_last_words_may_be_a_stream(self) -> None:
        async with HostedCall() as call:
            number = call.child.begin_stream()
            call.child.say(ipc.DisconnectClient(session_id="s"))
            await asyncio.sleep(0.5)
            call.child.write(number, TEXT)
            await asyncio.sleep(0.5)
            assert call.told("session_close") == []
            call.child.end_stream(number)
            await call.moment("session_close")
            assert said(call) == SENTENCES
            assert outcomes(call) == [(number, False)]

    @in_virtual_time
    async def test_a_stream_that_hangs_does_not_keep_a_session_that_the_agent_ends(self) -> None:
        async with HostedCall() as call:
            number = call.child.begin_stream()
            call.child.say(ipc.DisconnectClient(session_id="s"))
            await call.host.over.wait()
            assert outcomes(call) == [(number, True)]
            assert await call.stored() == ([], "agent_disconnected")

    @in_virtual_time
    async def test_what_waits_in_the_child_as_it_hangs_up_is_said_before_the_end(self) -> None:
        async with HostedCall() as call:
            number = call.child.begin_stream()
            call.child.say(HANGS_UP_LATER)
            call.child.write(number, "One is here.")
            call.child.end_stream(number)
            await asyncio.sleep(5)  # what was said is played by now, and the rest is on its way
            assert call.told("session_close") == []
            last = call.child.speak("Good bye.")
            call.child.say(ipc.DisconnectClient(session_id="s"))
            await call.moment("session_close")
            assert said(call) == ["One is here.", "Good bye."]
            assert outcomes(call) == [(number, False), (last, False)]
            await call.host.over.wait()
            assert await call.stored() == ([], "agent_disconnected")

    @in_virtual_time
    async def test_what_waits_and_never_comes_keeps_the_session_for_no_longer_than_last_words_may_take(
        self,
    ) -> None:
        async with HostedCall() as call:
            hung_up = asyncio.get_running_loop().time()
            call.child.say(HANGS_UP_LATER)
            assert await call.moment("session_close") - hung_up == pytest.approx(15, abs=0.5)
            await call.host.over.wait()
            assert await call.stored() == ([], "agent_disconnected")

    @in_virtual_time
    async def test_where_the_child_dies_with_its_last_words_that_is_the_end_at_once(self) -> None:
        async with HostedCall(settings=SessionSettings(error_message="")) as call:
            call.child.say(HANGS_UP_LATER)
            await asyncio.sleep(0.1)
            call.child.die()
            await asyncio.wait_for(call.host.over.wait(), 5)
            assert await call.stored() == ([("AGENT_CHILD_CRASHED", False)], "agent_error")
            await asyncio.sleep(0)
            assert call.host._tasks == set(), "nobody waits for them any more"

    @in_virtual_time
    async def test_sentences_by_the_hundred_all_wait_their_turn(self) -> None:
        async with HostedCall(seconds_per_character=0.001) as call:
            number = call.child.begin_stream()
            call.child.write(number, "Ja. " * (MAX_QUEUED_UTTERANCES + 20))
            call.child.end_stream(number)
            await asyncio.sleep(100)
            assert said(call) == ["Ja."] * (MAX_QUEUED_UTTERANCES + 20)
            assert outcomes(call) == [(number, False)]

    @in_virtual_time
    async def test_streams_for_whose_text_there_is_no_room_are_interrupted(self) -> None:
        async with HostedCall(seconds_per_character=0.2) as call:
            numbers = []
            piece = "word " * 3276  # 16,380 characters
            for _ in range(18):
                numbers.append(call.child.begin_stream())
                for _ in range(16):
                    call.child.write(numbers[-1], piece)
                call.child.end_stream(numbers[-1])
                await asyncio.sleep(1)  # the rate is not what is looked at here
            assert outcomes(call) == [(numbers[16], True), (numbers[17], True)]


class TestOnADataChannel:
    @in_virtual_time
    async def test_each_sentence_is_a_message(self) -> None:
        async with HostedCall(Mode.DATA) as call:
            number = call.child.begin_stream()
            call.child.write(number, "One is here. Two")
            await asyncio.sleep(1)
            assert said(call) == ["One is here."]
            call.child.write(number, " is here. And three")
            call.child.end_stream(number)
            call.child.speak("Four")
            await asyncio.sleep(1)
            assert said(call) == [*SENTENCES, "Four"]
            assert outcomes(call)[0] == (number, False)

    @in_virtual_time
    async def test_a_stream_may_go_on_while_the_agent_says_good_bye(self) -> None:
        async with HostedCall(Mode.DATA) as call:
            number = call.child.begin_stream()
            call.child.say(ipc.DisconnectClient(session_id="s"))
            await asyncio.sleep(1)
            call.child.write(number, TEXT)
            call.child.end_stream(number)
            await call.moment("session_close")
            assert said(call) == SENTENCES


class TestInAChat:
    @pytest.mark.states("sem-chat/gateway/speak")
    @in_virtual_time
    async def test_what_is_said_keeps_its_order_around_a_stream(self) -> None:
        async with running_runner() as bench:
            await bench.chat("s")
            (child,) = bench.sandbox.children
            before = child.speak("Before")
            number = child.begin_stream()
            for piece in ("One is here. T", "wo"):
                child.write(number, piece)
            child.end_stream(number)
            child.speak("After")
            await bench.gateway.until(lambda: len(bench.gateway.said("s")) >= 4)
            said = [part for part in bench.gateway.said("s") if not isinstance(part, ChatStreamText)]
            assert said == [
                ChatMessage(speech_id="s-1", text="Before"),
                ChatStreamStart(speech_id="s-2"),
                ChatStreamEnd(speech_id="s-2", text="One is here. Two", complete=True),
                ChatMessage(speech_id="s-3", text="After"),
            ]
            done = {message.speech_id: message.interrupted for message in child.of(ipc.SpeechDone)}
            assert done == {before: False, number: False, number + 1: False}

    @in_virtual_time
    async def test_last_words_may_be_a_stream(self) -> None:
        async with running_runner() as bench:
            await bench.chat("s")
            (child,) = bench.sandbox.children
            number = child.begin_stream()
            child.say(ipc.DisconnectClient(session_id="s"))
            await asyncio.sleep(1)
            child.write(number, "Good bye.")
            child.end_stream(number)
            await bench.gateway.until(lambda: bench.gateway.of("s", ChatClosed) != [])
            assert bench.gateway.said("s")[-2:] == [
                ChatStreamEnd(speech_id="s-1", text="Good bye.", complete=True),
                ChatClosed(end_reason=EndReason.AGENT_DISCONNECTED),
            ]

    @in_virtual_time
    async def test_what_waits_in_the_child_as_it_hangs_up_is_said_before_the_end(self) -> None:
        async with running_runner() as bench:
            await bench.chat("s")
            (child,) = bench.sandbox.children
            number = child.begin_stream()
            child.say(HANGS_UP_LATER)
            child.write(number, "One.")
            child.end_stream(number)
            await asyncio.sleep(1)
            child.speak("Good bye.")
            child.say(ipc.DisconnectClient(session_id="s"))
            await bench.gateway.until(lambda: bench.gateway.of("s", ChatClosed) != [])
            assert bench.gateway.said("s")[-3:] == [
                ChatStreamEnd(speech_id="s-1", text="One.", complete=True),
                ChatMessage(speech_id="s-2", text="Good bye."),
                ChatClosed(end_reason=EndReason.AGENT_DISCONNECTED),
            ]

    @in_virtual_time
    async def test_the_stream_of_a_child_that_died_is_not_gone_on_with_by_the_next(self) -> None:
        agent = msgspec.structs.replace(AGENT, agent_crash_policy=AgentCrashPolicy.RESTART_CHILD)
        async with running_runner() as bench:
            await bench.chat("s", agent=agent)
            first = bench.sandbox.children[0]
            number = first.begin_stream()
            first.write(number, "One is")
            await bench.gateway.until(lambda: bench.gateway.of("s", ChatStreamText) != [])
            first.die()
            await asyncio.sleep(2)
            second = bench.sandbox.children[1]
            assert second.begin_stream() == number
            second.write(number, "Again.")
            second.end_stream(number)
            await bench.gateway.until(lambda: len(bench.gateway.of("s", ChatStreamEnd)) == 2)
            assert bench.gateway.of("s", ChatStreamEnd) == [
                ChatStreamEnd(speech_id="s-1", text="One is", complete=False),
                ChatStreamEnd(speech_id="s-2", text="Again.", complete=True),
            ]


FAILURE = ipc.AgentError(session_id="s", hook="speak", message="RuntimeError: no more", stack="…")


class TestEnds:
    @pytest.mark.parametrize("mode", list(Mode))
    @in_virtual_time
    async def test_a_stream_that_raised_is_a_handler_failure(self, mode: Mode) -> None:
        async with HostedCall(mode, settings=SessionSettings(error_message="")) as call:
            number = call.child.begin_stream()
            call.child.write(number, "One is here. Two")
            await asyncio.sleep(0.1)
            call.child.end_stream(number, complete=False)
            call.child.say(FAILURE)
            await call.host.over.wait()
            (error,) = call.told("session_error")
            assert (error["code"], error["recoverable"]) == ("AGENT_HANDLER_FAILED", False)
            assert said(call)[0] == "One is here."
            assert outcomes(call) == [(number, True)]
            assert await call.stored() == ([("AGENT_HANDLER_FAILED", False)], "agent_error")

    @pytest.mark.parametrize("mode", list(Mode))
    @in_virtual_time
    async def test_where_the_session_fails_nothing_of_a_stream_is_said_any_more(self, mode: Mode) -> None:
        async with HostedCall(mode, settings=SessionSettings(error_message="")) as call:
            number = call.child.begin_stream()
            call.child.write(number, "One is here. Two")
            await asyncio.sleep(0.5)
            call.child.say(FAILURE)
            call.child.write(number, " is here. And three. ")
            second = call.child.begin_stream()  # refused: the first one is open
            call.child.end_stream(number, complete=False)
            third = call.child.begin_stream()
            call.child.write(third, "Third. ")
            await call.host.over.wait()
            # What came can still be read, but is not heard.
            assert said(call) == (["One is here.", "Two"] if mode is Mode.DATA else ["One is here."])
            assert outcomes(call) == [(number, True), (third, True)]
            assert third > second

    @in_virtual_time
    async def test_with_the_child_its_stream_is_over_and_another_may_begin(self) -> None:
        settings = SessionSettings(error_message="")
        policy = AgentCrashPolicy.RESTART_CHILD
        async with HostedCall(settings=settings, agent_crash_policy=policy) as call:
            first = call.child.begin_stream()
            call.child.write(first, "One is here. Two is")
            await asyncio.sleep(0.5)
            call.child.die()
            await asyncio.sleep(1)
            second = call.child.begin_stream()
            assert second == first  # another child counts anew
            call.child.write(second, "Here I am. ")
            call.child.end_stream(second)
            await asyncio.sleep(5)
            assert said(call) == ["One is here.", "Here I am."]
            assert outcomes(call) == [(second, False)]

    @pytest.mark.parametrize("mode", list(Mode))
    @in_virtual_time
    async def test_nobody_is_idle_while_the_agent_writes(self, mode: Mode) -> None:
        settings = SessionSettings(idle_timeout_seconds=30, data_only_idle_timeout_seconds=30)
        async with HostedCall(mode, settings=settings) as call:
            number = call.child.begin_stream()
            for _ in range(5):
                await asyncio.sleep(20)
                call.child.write(number, "word ")
            last = asyncio.get_running_loop().time()
            # A stream that hangs does not keep a session for ever.
            assert await call.moment("session_close") - last == pytest.approx(30, abs=0.5)
            await call.host.over.wait()
            assert outcomes(call) == [(number, True)]


class TestHostileAgents:
    @in_virtual_time
    async def test_what_belongs_to_no_open_stream_is_dropped(self) -> None:
        async with HostedCall() as call:
            call.child.write(77, "Nobody began this. ")
            call.child.end_stream(77)
            number = call.child.begin_stream()
            call.child.begin_stream()
            call.child.write(number + 1, "Nor this. ")
            call.child.write(number, "But this.")
            call.child.end_stream(number)
            call.child.end_stream(number)
            await asyncio.sleep(5)
            assert said(call) == ["But this."]
            assert outcomes(call) == [(number, False)]

    @in_virtual_time
    async def test_a_piece_or_a_stream_that_is_too_long_is_cut_off_there(self) -> None:
        async with HostedCall(Mode.DATA) as call:
            piece = call.child.begin_stream()
            call.child.write(piece, "Before. ")
            call.child.write(piece, "x" * (ipc.MAX_SPEAK_CHARS + 1))
            call.child.write(piece, "After. ")
            call.child.end_stream(piece)
            whole = call.child.begin_stream()
            for _ in range(ipc.MAX_STREAM_CHARS // ipc.MAX_SPEAK_CHARS + 1):
                call.child.write(whole, ("x" * 99 + ". ") * (ipc.MAX_SPEAK_CHARS // 101))
            call.child.write(whole, "y" * 5000)
            call.child.end_stream(whole)
            await asyncio.sleep(1)
            assert said(call)[0] == "Before."
            assert "After." not in said(call)
            assert not any("y" in text for text in said(call))
            assert set(outcomes(call)) == {(piece, True), (whole, True)}

    @in_virtual_time
    async def test_a_flood_of_pieces_is_cut_off_and_the_session_goes_on(self) -> None:
        async with HostedCall(Mode.DATA) as call:
            number = call.child.begin_stream()
            for _ in range(10_000):
                call.child.write(number, "a. ")
            call.child.end_stream(number)
            await asyncio.sleep(10)
            assert 3000 < len(said(call)) < 8000
            assert outcomes(call) == [(number, True)]
            call.child.speak("hello")
            await asyncio.sleep(1)
            assert said(call)[-1] == "hello"

    @in_virtual_time
    async def test_a_flood_of_streams_is_dropped_and_each_is_told(self) -> None:
        async with HostedCall(Mode.DATA) as call:
            for _ in range(5000):
                call.child.end_stream(call.child.begin_stream())
            await asyncio.sleep(10)
            told = outcomes(call)
            assert [number for number, _ in told] == list(range(1, 5001))
            assert any(interrupted for _, interrupted in told)
