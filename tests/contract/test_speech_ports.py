"""What every synthesizer, recognizer, voice activity detector and speech suite does, real or fake."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest

from voicethere.adapters.speech.suite import OfflineSpeech
from voicethere.core.ports import HintCheck, SpeechProviderError, SpeechSuite, Transcript
from voicethere.testing.speech import ScriptedRecognizer, ScriptedSpeech, tone

MakeSuite = Callable[[], SpeechSuite]

SUITES: dict[str, MakeSuite] = {
    "offline": OfflineSpeech,
    "scripted": lambda: ScriptedSpeech(recognizer=ScriptedRecognizer(["hello"], unknown=["открой", "дверь"])),
}


@pytest.fixture(params=SUITES)
def make_suite(request: pytest.FixtureRequest) -> MakeSuite:
    return SUITES[request.param]


@pytest.fixture
async def suite(make_suite: MakeSuite) -> AsyncIterator[SpeechSuite]:
    suite = make_suite()
    yield suite
    await suite.aclose()


async def spoken(suite: SpeechSuite, text: str) -> bytes:
    return b"".join([chunk async for chunk in suite.synthesizer.synthesize(text)])


# ------------------------------------------------------------------ synthesizer


async def test_speech_is_audible_whole_samples(suite: SpeechSuite) -> None:
    pcm = await spoken(suite, "hello there")
    assert len(pcm) % 2 == 0
    assert 0.1 < len(pcm) / 2 / suite.synthesizer.sample_rate < 5
    assert max(array("h", pcm)) > 1000


async def test_longer_text_is_longer_speech(suite: SpeechSuite) -> None:
    short, long = await spoken(suite, "hello"), await spoken(suite, "hello and good morning to all of you")
    assert len(long) > 1.5 * len(short)


async def test_each_chunk_is_whole_and_short(suite: SpeechSuite) -> None:
    chunks = [chunk async for chunk in suite.synthesizer.synthesize("good morning to all of you")]
    assert len(chunks) > 2
    assert all(chunk and len(chunk) % 2 == 0 for chunk in chunks)
    assert max(len(chunk) for chunk in chunks) / 2 / suite.synthesizer.sample_rate <= 0.2


@pytest.mark.parametrize("text", ["", "   ", "\0\x01\x02", "\u200b\u202e"])
async def test_nothing_to_say_is_nothing_said(suite: SpeechSuite, text: str) -> None:
    assert await spoken(suite, text) == b""


async def test_speech_that_is_closed_midway_leaves_the_synthesizer_working(suite: SpeechSuite) -> None:
    async with aclosing(suite.synthesizer.synthesize("one two three four five six seven")) as chunks:  # type: ignore[type-var]
        assert await anext(chunks)
    assert await spoken(suite, "hello")


async def test_two_can_be_spoken_at_once(suite: SpeechSuite) -> None:
    alone = await spoken(suite, "hello")
    first, second = await asyncio.gather(spoken(suite, "hello"), spoken(suite, "good morning to you"))
    assert len(first) == pytest.approx(len(alone), rel=0.02)
    assert len(second) > len(first)


async def test_a_closed_synthesizer_says_so(make_suite: MakeSuite) -> None:
    suite = make_suite()
    await suite.aclose()
    with pytest.raises(SpeechProviderError, match="closed"):
        await spoken(suite, "hello")


# ------------------------------------------------------------------ recognizer


async def test_silence_is_understood_as_nothing(suite: SpeechSuite) -> None:
    assert await suite.recognizer.recognize(bytes(32_000), hints=["hello"]) == Transcript(text="")


async def test_no_audio_is_understood_as_nothing(suite: SpeechSuite) -> None:
    assert await suite.recognizer.recognize(b"", hints=["hello"]) == Transcript(text="")


async def test_half_a_sample_is_an_error_that_says_so(suite: SpeechSuite) -> None:
    with pytest.raises(SpeechProviderError, match="3 bytes are no 16-bit audio"):
        await suite.recognizer.recognize(b"\1\2\3", hints=["hello"])


async def test_a_closed_recognizer_says_so(make_suite: MakeSuite) -> None:
    suite = make_suite()
    await suite.aclose()
    with pytest.raises(SpeechProviderError, match="closed"):
        await suite.recognizer.recognize(tone(0.5), hints=["hello"])


async def test_hints_that_cannot_be_known_are_named_in_their_order_with_the_words_and_a_reason(
    suite: SpeechSuite,
) -> None:
    assert isinstance(suite.recognizer, HintCheck)
    hints = ["hello", "открой hello дверь", "good night", "дверь"]
    first, second = await suite.recognizer.unknown_words(hints)
    assert (first.hint, first.words, first.recognizable) == ("открой hello дверь", ("открой", "дверь"), False)
    assert (second.hint, second.words, second.recognizable) == ("дверь", ("дверь",), False)
    assert "дверь" in second.reason


async def test_hints_that_are_known_need_no_words(suite: SpeechSuite) -> None:
    assert isinstance(suite.recognizer, HintCheck)
    assert list(await suite.recognizer.unknown_words(["hello", "good night"])) == []
    assert list(await suite.recognizer.unknown_words([])) == []


async def test_a_closed_recognizer_does_not_look_up_hints(make_suite: MakeSuite) -> None:
    suite = make_suite()
    await suite.aclose()
    assert isinstance(suite.recognizer, HintCheck)
    with pytest.raises(SpeechProviderError, match="closed"):
        await suite.recognizer.unknown_words(["hello"])


# ------------------------------------------------------------------ voice activity


async def test_silence_is_no_speech(suite: SpeechSuite) -> None:
    detector = suite.new_voice_activity()
    assert not any(detector.is_speech(bytes(detector.frame_samples * 2)) for _ in range(50))


async def test_frames_last_10_to_64_milliseconds(suite: SpeechSuite) -> None:
    assert 160 <= suite.new_voice_activity().frame_samples <= 1024


async def test_a_frame_of_another_size_is_refused(suite: SpeechSuite) -> None:
    detector = suite.new_voice_activity()
    with pytest.raises(ValueError, match=f"a frame has {detector.frame_samples * 2} bytes, not 10"):
        detector.is_speech(bytes(10))


async def test_each_session_gets_a_detector_of_its_own(suite: SpeechSuite) -> None:
    assert suite.new_voice_activity() is not suite.new_voice_activity()


# ------------------------------------------------------------------ suite


async def test_closing_twice_is_harmless(make_suite: MakeSuite) -> None:
    suite = make_suite()
    assert await spoken(suite, "hello")
    await suite.aclose()
    await suite.aclose()
