"""What a listener makes of a user's voice: which events, in which order, and when it interrupts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from voicethere.core.ports import Recognizer, SpeechProviderError, Transcript
from voicethere.roles.runner.listening import MAX_WAITING_UTTERANCES, Listener
from voicethere.testing.speech import LevelVoiceActivity, ScriptedRecognizer, tone
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire.control_channel import SpeechEventType

FRAME = 512 / 16_000
Heard = list[tuple[str, str | None, str | None]]


def quiet(frames: int) -> bytes:
    return bytes(1024 * frames)


def speech(frames: int) -> bytes:
    return tone(FRAME, level=9000) * frames


class LengthRecognizer:
    """Hears as many words as there are whole half seconds; takes `seconds` for it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.lengths: list[int] = []
        self.failing = False

    async def recognize(self, pcm: bytes, *, hints: Sequence[str]) -> Transcript:
        self.lengths.append(len(pcm))
        await asyncio.sleep(self.seconds)
        if self.failing:
            raise SpeechProviderError("it is gone")
        return Transcript(text=" ".join(["word"] * (len(pcm) // 16_000)))

    async def aclose(self) -> None: ...


class Ears:
    """A listener, and what came of it. `agent_speaks` is what the speaker would say."""

    def __init__(self, recognizer: Recognizer | None) -> None:
        self.heard: Heard = []
        self.agent_speaks = False
        self.interruptions = 0
        self.listener = Listener(
            voice_activity=LevelVoiceActivity(),
            recognizer=recognizer,
            hints=lambda: ("hello",),
            speech_event=lambda event, text, error: self.heard.append((event.value, text, error)),
            agent_speaks=lambda: self.agent_speaks,
            interrupt=self._interrupt,
        )

    async def __aenter__(self) -> Ears:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.listener.aclose()

    def _interrupt(self) -> None:
        self.interruptions += 1
        self.agent_speaks = False

    def events(self) -> list[str]:
        return [event for event, _, _ in self.heard]

    def texts(self, event: SpeechEventType) -> list[str | None]:
        return [text for kind, text, _ in self.heard if kind == event]

    async def hear(self, pcm: bytes) -> None:
        """As it comes from a connection: 20 ms at a time, in real time."""
        for start in range(0, len(pcm), 640):
            self.listener.hear(pcm[start : start + 640])
            await asyncio.sleep(0.02)


@in_virtual_time
async def test_a_phrase_gives_its_events_in_the_documented_order() -> None:
    async with Ears(ScriptedRecognizer(["hello"])) as ears:
        await ears.hear(quiet(5) + speech(10) + quiet(20))
        assert ears.events() == [
            "stt_stream_start",
            "vad_triggered",
            "user_speaking_start",
            "user_speaking_end",
            "user_stt_start",
            "user_stt_end",
            "user_speech_final",
        ]
        assert ears.heard[-1] == ("user_speech_final", "hello", None)
        ears.listener.audio_over()
        assert ears.events()[-1] == "stt_stream_end"


@in_virtual_time
async def test_what_is_not_understood_says_so() -> None:
    async with Ears(ScriptedRecognizer()) as ears:
        await ears.hear(speech(10) + quiet(20))
        assert ears.events()[-3:] == ["user_stt_start", "user_stt_end", "user_stt_not_found"]


@in_virtual_time
async def test_a_recognizer_that_fails_costs_one_utterance() -> None:
    async with Ears(ScriptedRecognizer([SpeechProviderError("it is gone"), "hello"])) as ears:
        await ears.hear(speech(10) + quiet(20))
        assert ears.events()[-2:] == ["user_stt_end", "error"]
        assert ears.heard[-1] == ("error", None, "it is gone")
        await ears.hear(speech(10) + quiet(20))
        assert ears.heard[-1] == ("user_speech_final", "hello", None)


class TestPartials:
    @in_virtual_time
    async def test_they_come_while_the_user_speaks_and_only_when_they_changed(self) -> None:
        recognizer = LengthRecognizer(0.05)
        async with Ears(recognizer) as ears:
            await ears.hear(speech(94) + quiet(20))  # three seconds
            partials = ears.texts(SpeechEventType.USER_SPEECH_PARTIAL)
            assert partials == ["word", "word word", "word word word", "word word word word"]
            events = ears.events()
            assert events.count("user_stt_start") == events.count("user_stt_end") == 1
            assert events.index("user_stt_start") < events.index("user_speech_partial")
            assert events[-3:] == ["user_speaking_end", "user_stt_end", "user_speech_final"]

    @in_virtual_time
    async def test_a_partial_that_comes_late_is_dropped(self) -> None:
        async with Ears(LengthRecognizer(2.0)) as ears:
            await ears.hear(speech(25) + quiet(20))  # it ends while the only partial is being recognized
            await asyncio.sleep(10)
            assert ears.texts(SpeechEventType.USER_SPEECH_PARTIAL) == []
            assert ears.events()[-2:] == ["user_stt_end", "user_speech_final"]

    @in_virtual_time
    async def test_a_busy_recognizer_is_not_asked_again(self) -> None:
        recognizer = LengthRecognizer(60.0)
        async with Ears(recognizer) as ears:
            await ears.hear(speech(150))
            assert len(recognizer.lengths) == 1

    @in_virtual_time
    async def test_a_long_utterance_is_looked_at_a_few_times_only(self) -> None:
        recognizer = LengthRecognizer()
        async with Ears(recognizer) as ears:
            await ears.hear(speech(460))  # just under the longest utterance of 15 s
            assert 5 <= len(recognizer.lengths) <= 14
            assert sum(recognizer.lengths) < 8 * recognizer.lengths[-1]

    @in_virtual_time
    async def test_one_that_fails_is_passed_over(self) -> None:
        recognizer = LengthRecognizer()
        recognizer.failing = True
        async with Ears(recognizer) as ears:
            await ears.hear(speech(25))
            assert recognizer.lengths
            recognizer.failing = False
            await ears.hear(quiet(20))
            assert "error" not in ears.events()
            assert ears.events()[-1] == "user_speech_final"

    @in_virtual_time
    async def test_a_short_word_has_none(self) -> None:
        recognizer = LengthRecognizer()
        async with Ears(recognizer) as ears:
            await ears.hear(speech(12) + quiet(20))
            assert len(recognizer.lengths) == 1


class TestBargeIn:
    @in_virtual_time
    async def test_speech_over_the_agent_interrupts_it_once(self) -> None:
        async with Ears(ScriptedRecognizer(["stop"])) as ears:
            ears.agent_speaks = True
            await ears.hear(speech(40) + quiet(20))
            assert ears.interruptions == 1
            assert ears.events().count("barge_in") == 1
            assert ears.events().index("barge_in") == ears.events().index("user_speaking_start") + 1

    @pytest.mark.parametrize(("frames", "interrupts"), [(2, 0), (5, 0), (7, 0), (8, 1)])
    @in_virtual_time
    async def test_it_takes_a_quarter_of_a_second(self, frames: int, interrupts: int) -> None:
        async with Ears(None) as ears:
            ears.agent_speaks = True
            await ears.hear(quiet(3) + speech(frames) + quiet(20))
            assert ears.interruptions == interrupts

    @in_virtual_time
    async def test_clicks_that_are_far_apart_do_not_add_up(self) -> None:
        async with Ears(None) as ears:
            ears.agent_speaks = True
            await ears.hear((speech(3) + quiet(20)) * 10)
            assert ears.interruptions == 0
            assert ears.events().count("user_speaking_start") == 10

    @in_virtual_time
    async def test_an_agent_that_begins_while_the_user_speaks_gets_the_same_time(self) -> None:
        async with Ears(None) as ears:
            await ears.hear(speech(20))
            ears.agent_speaks = True
            await ears.hear(speech(6))
            assert ears.interruptions == 0
            await ears.hear(speech(4))
            assert ears.interruptions == 1

    @in_virtual_time
    async def test_nobody_is_interrupted_while_the_agent_is_silent(self) -> None:
        async with Ears(None) as ears:
            await ears.hear(speech(60))
            assert "barge_in" not in ears.events()

    @in_virtual_time
    async def test_how_the_audio_is_cut_makes_no_difference(self) -> None:
        async with Ears(None) as ears:
            ears.agent_speaks = True
            ears.listener.hear(speech(40) + quiet(20))
            assert ears.events() == ["vad_triggered", "user_speaking_start", "barge_in", "user_speaking_end"]


class TestTheStream:
    @in_virtual_time
    async def test_an_utterance_ends_where_the_audio_does(self) -> None:
        async with Ears(ScriptedRecognizer(["hello"])) as ears:
            await ears.hear(speech(10))
            ears.listener.audio_over()
            await asyncio.sleep(0.1)
            assert ears.events()[3:] == [
                "user_speaking_end",
                "stt_stream_end",
                "user_stt_start",
                "user_stt_end",
                "user_speech_final",
            ]

    @in_virtual_time
    async def test_audio_that_comes_back_is_a_new_stream(self) -> None:
        async with Ears(ScriptedRecognizer()) as ears:
            ears.listener.audio_over()
            for _ in range(2):
                await ears.hear(quiet(5))
                ears.listener.audio_over()
                ears.listener.audio_over()
            assert ears.events() == ["stt_stream_start", "stt_stream_end"] * 2

    @in_virtual_time
    async def test_without_a_recognizer_the_voice_is_told_of_and_nothing_else(self) -> None:
        async with Ears(None) as ears:
            await ears.hear(speech(40) + quiet(20))
            ears.listener.audio_over()
            assert ears.events() == ["vad_triggered", "user_speaking_start", "user_speaking_end"]

    @in_virtual_time
    async def test_more_than_can_wait_is_dropped_and_said(self) -> None:
        async with Ears(LengthRecognizer(3600.0)) as ears:
            for _ in range(MAX_WAITING_UTTERANCES + 2):
                await ears.hear(speech(10) + quiet(20))
            dropped = [error for event, _, error in ears.heard if event == "error"]
            assert dropped == ["recognition is behind: an utterance was dropped"]
