"""The fakes do what their script says, failures included."""

from __future__ import annotations

import pytest

from voicethere.core.ports import SpeechProviderError, Transcript
from voicethere.testing.speech import (
    LevelVoiceActivity,
    ScriptedRecognizer,
    ScriptedSpeech,
    ScriptedSynthesizer,
    tone,
)


async def test_the_recognizer_hears_its_script_line_by_line() -> None:
    recognizer = ScriptedRecognizer(["one"])
    recognizer.will_hear("two")
    heard = [(await recognizer.recognize(tone(0.1), hints=["x"])).text for _ in range(3)]
    assert heard == ["one", "two", ""]
    assert [hints for _, hints in recognizer.heard] == [("x",)] * 3


async def test_a_scripted_failure_is_raised_once() -> None:
    recognizer = ScriptedRecognizer([SpeechProviderError("no model"), "hello"])
    with pytest.raises(SpeechProviderError, match="no model"):
        await recognizer.recognize(tone(0.1), hints=[])
    assert await recognizer.recognize(tone(0.1), hints=[]) == Transcript(text="hello", confidence=1.0)


async def test_a_recognizer_of_commands_understands_nothing_else() -> None:
    recognizer = ScriptedRecognizer(["stop", "go"], only_hints=True)
    assert (await recognizer.recognize(tone(0.1), hints=["go"])).text == ""
    assert (await recognizer.recognize(tone(0.1), hints=["go"])).text == "go"


async def test_the_synthesizer_fails_where_told_to() -> None:
    synthesizer = ScriptedSynthesizer(fails_on="boom")
    with pytest.raises(SpeechProviderError, match="'boom'"):
        await anext(synthesizer.synthesize("say boom"))
    assert await anext(synthesizer.synthesize("say hello"))
    synthesizer.failure = "out of order"
    with pytest.raises(SpeechProviderError, match="out of order"):
        await anext(synthesizer.synthesize("say hello"))
    assert synthesizer.spoken == ["say boom", "say hello", "say hello"]


def test_loud_is_speech_and_soft_is_not() -> None:
    detector = LevelVoiceActivity()
    assert detector.is_speech(tone(512 / 16_000))
    assert not detector.is_speech(tone(512 / 16_000, level=100))


async def test_the_suite_opens_and_shares_its_parts() -> None:
    suite = ScriptedSpeech()
    await suite.open()
    assert suite.synthesizer is suite.synthesizer
    await suite.aclose()
