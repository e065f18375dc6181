"""A caller interrupts the agent: what stops, who hears of it, and what is never interrupted."""

from __future__ import annotations

import asyncio

from tests.unit.runner.hosted_call import HostedCall
from voicethere.roles.runner.speaking import Speaker, SpeakerEvents
from voicethere.testing.speech import ScriptedSynthesizer
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire import ipc
from voicethere.wire.settings import SessionSettings

STORY = "long story"
INTERRUPTED = [
    "agent_speaking_start",
    "stt_stream_start",
    "vad_triggered",
    "user_speaking_start",
    "barge_in",
    "agent_speaking_end",
    "user_stt_start",
    "user_speech_partial",
    "user_speaking_end",
    "user_stt_end",
    "user_speech_final",
]


@in_virtual_time
async def test_the_agent_stops_what_waits_is_dropped_and_both_sides_hear_of_it() -> None:
    async with HostedCall(heard=["hel", "hello"], seconds_per_character=1.0) as call:
        numbers = [call.child.speak(STORY) for _ in range(3)]
        await asyncio.sleep(2)
        await call.talk(1.0)
        assert call.speech_events() == INTERRUPTED
        assert call.child.heard() == INTERRUPTED
        done = {message.speech_id: message.interrupted for message in call.child.of(ipc.SpeechDone)}
        assert done == dict.fromkeys(numbers, True)
        assert len(call.told("agent_speak")) == 1
        audible = call.client.audible
        assert 100 <= audible <= 130  # two seconds, and some
        await asyncio.sleep(20)
        assert call.client.audible == audible


@in_virtual_time
async def test_what_the_agent_says_then_is_said() -> None:
    async with HostedCall(heard=["hello"]) as call:
        call.child.speak(STORY * 5)
        await asyncio.sleep(1)
        await call.talk(0.5)
        answer = call.child.speak("yes?")
        await asyncio.sleep(5)
        assert call.child.of(ipc.SpeechDone)[-1] == ipc.SpeechDone(
            session_id="s", speech_id=answer, interrupted=False
        )


@in_virtual_time
async def test_a_click_is_not_taken_for_an_interruption() -> None:
    async with HostedCall(seconds_per_character=0.5) as call:
        number = call.child.speak(STORY)
        await asyncio.sleep(1)
        for _ in range(3):
            await call.talk(0.1)
        await asyncio.sleep(10)
        assert "user_speaking_start" in call.speech_events()
        assert "barge_in" not in call.speech_events()
        assert call.child.of(ipc.SpeechDone) == [
            ipc.SpeechDone(session_id="s", speech_id=number, interrupted=False)
        ]


@in_virtual_time
async def test_an_agent_that_does_not_listen_can_be_interrupted_too() -> None:
    settings = SessionSettings(stt_enabled=False)
    async with HostedCall(settings=settings, seconds_per_character=1.0) as call:
        call.child.speak(STORY)
        await asyncio.sleep(1)
        await call.talk(1.0)
        assert call.speech_events() == [
            "agent_speaking_start",
            "vad_triggered",
            "user_speaking_start",
            "barge_in",
            "agent_speaking_end",
            "user_speaking_end",
        ]


@in_virtual_time
async def test_the_crash_message_is_said_to_its_end_whoever_speaks() -> None:
    settings = SessionSettings(error_message="sorry " * 10)
    async with HostedCall(settings=settings) as call:
        call.child.die()
        await call.moment("agent_speak")
        assert call.errors() == [("AGENT_CHILD_CRASHED", False)]
        await call.talk(4.0)
        await asyncio.sleep(5)
        assert "barge_in" not in call.speech_events()
        assert call.client.audible >= 300  # six seconds
        rows, _ = await call.stored()
        assert rows == [("AGENT_CHILD_CRASHED", False)]


@in_virtual_time
async def test_the_stream_ends_where_the_client_is_lost_and_the_agent_hears_of_it() -> None:
    async with HostedCall(heard=["hello"]) as call:
        await call.talk(0.4, pause=0.0)
        call.client.events.lost()
        await asyncio.sleep(0.1)
        assert call.child.heard()[-5:] == [
            "user_speaking_end",
            "stt_stream_end",
            "user_stt_start",
            "user_stt_end",
            "user_speech_final",
        ]
        await call.connect()
        await call.talk(0.4)
        assert call.child.heard().count("stt_stream_start") == 2


@in_virtual_time
async def test_after_the_error_that_ends_the_session_nobody_is_listened_to() -> None:
    async with HostedCall(settings=SessionSettings(error_message="")) as call:
        await call.talk(0.2, pause=0.0)
        call.child.die()
        await call.moment("session_error")
        call.client.events.audio(bytes(32_000))
        await asyncio.sleep(1)
        assert call.speech_events()[-2:] == ["user_speaking_end", "stt_stream_end"]


class TestASpeaker:
    @staticmethod
    def make(synthesizer: ScriptedSynthesizer, heard: list[str]) -> Speaker:
        return Speaker(
            synthesizer=synthesizer,
            track=lambda: None,
            events=SpeakerEvents(
                announce=heard.append, speech_event=lambda event, text, error: heard.append(event.value)
            ),
        )

    @in_virtual_time
    async def test_without_a_connection_nothing_is_said_and_that_is_told(self) -> None:
        heard: list[str] = []
        outcomes: list[bool] = []
        speaker = self.make(ScriptedSynthesizer(), heard)
        assert speaker.say("hello", outcomes.append)
        await speaker.drained()
        assert (heard, outcomes) == (["hello"], [True])
        await speaker.aclose()
        assert not speaker.say("more", outcomes.append)
        assert outcomes == [True, True]

    @in_virtual_time
    async def test_a_synthesizer_that_fails_costs_that_utterance(self) -> None:
        synthesizer = ScriptedSynthesizer(fails_on="bad")
        async with HostedCall() as call:
            call.host._speaker._synthesizer = synthesizer
            call.child.speak("bad words")
            good = call.child.speak("good words")
            await asyncio.sleep(10)
            assert call.speech_events() == ["error", "agent_speaking_start", "agent_speaking_end"]
            assert call.child.of(ipc.SpeechDone)[-1].speech_id == good
            assert not call.child.of(ipc.SpeechDone)[-1].interrupted
