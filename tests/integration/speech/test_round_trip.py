"""What is spoken is heard: synthesizer → voice activity → endpointing → recognizer, all of them real."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from voicethere.adapters.speech.endpointing import Endpointer, SpeechEnded, SpeechStarted
from voicethere.adapters.speech.espeak import EspeakSynthesizer
from voicethere.adapters.speech.pocketsphinx_recognizer import PocketsphinxRecognizer
from voicethere.adapters.speech.silero_vad import SileroVoiceActivity

Speak = Callable[..., Awaitable[bytes]]

PHRASES = (
    "What time is it?",
    "turn on the lights",
    "switch off the lamp",
    "play some music",
    "stop the music",
    "what is the weather today",
    "tell me a joke",
    "lock the front door",
    "call my mother",
    "open the door",
    "close the window",
    "read the news",
    "Good morning!",
    "good night",
    "thank you very much",
    "where is my phone",
    "order a pizza",
    "send a message",
    "how are you today",
    "tell me a story",
    "please crash now",
)
OTHER_SPEECH = (
    "the quick brown fox jumps over the lazy dog",
    "I would like to buy some bread",
    "my neighbour has a big dog",
    "banana",
    "artificial intelligence is everywhere",
    "um",
    "yes",
)


def utterances(audio: bytes) -> list[SpeechEnded]:
    """As a session hears it: in network frames of 20 ms."""
    ears = Endpointer(SileroVoiceActivity())
    events: list[SpeechStarted | SpeechEnded] = []
    for start in range(0, len(audio), 640):
        events += ears.feed(audio[start : start + 640])
    assert not ears.speaking
    return [event for event in events if isinstance(event, SpeechEnded)]


@pytest.mark.parametrize("words_per_minute", [130, 175, 230])
async def test_every_phrase_is_one_utterance_and_recognized_exactly(
    speak: Speak, recognizer: PocketsphinxRecognizer, words_per_minute: int
) -> None:
    heard = {}
    for phrase in PHRASES:
        (utterance,) = utterances(await speak(phrase, words_per_minute=words_per_minute))
        heard[phrase] = (await recognizer.recognize(utterance.pcm, hints=PHRASES)).text
    assert heard == {phrase: phrase for phrase in PHRASES}


async def test_phrases_between_perfect_silence_are_recognized_too(
    speak: Speak, recognizer: PocketsphinxRecognizer
) -> None:
    """Muted microphones, files and codecs deliver exact zeros, which acoustic models have never heard."""
    heard = {}
    for phrase in PHRASES:
        (utterance,) = utterances(await speak(phrase, noise=0))
        heard[phrase] = (await recognizer.recognize(utterance.pcm, hints=PHRASES)).text
    assert heard == {phrase: phrase for phrase in PHRASES}


async def test_two_phrases_with_a_breath_between_are_two_utterances(
    speak: Speak, recognizer: PocketsphinxRecognizer
) -> None:
    audio = await speak("open the door") + await speak("good night")
    texts = [(await recognizer.recognize(u.pcm, hints=PHRASES)).text for u in utterances(audio)]
    assert texts == ["open the door", "good night"]


async def test_a_sentence_with_a_comma_is_one_utterance(speak: Speak) -> None:
    assert len(utterances(await speak("well, please turn on the lights, and then, close the window"))) == 1


async def test_other_speech_is_not_taken_for_a_command(
    speak: Speak, recognizer: PocketsphinxRecognizer
) -> None:
    taken = {}
    for text in OTHER_SPEECH:
        for utterance in utterances(await speak(text)):
            taken[text] = (await recognizer.recognize(utterance.pcm, hints=PHRASES)).text
    assert taken.keys() >= set(OTHER_SPEECH) - {"um", "yes"}  # a word may be too short to be heard at all
    assert {text: heard for text, heard in taken.items() if heard} == {}


@pytest.mark.parametrize("noise", ["hiss", "hum", "whistle", "clicks", "bursts", "siren"])
async def test_noise_is_neither_speech_nor_a_command(
    noises: dict[str, bytes], noise: str, recognizer: PocketsphinxRecognizer
) -> None:
    assert utterances(noises[noise]) == []
    assert (await recognizer.recognize(noises[noise], hints=PHRASES)).text == ""


async def test_voice_activity_begins_afresh_after_a_long_silence(speak: Speak) -> None:
    audio = await speak("good morning")
    quiet = bytes(16_000 * 2 * 10)
    lengths = [u.seconds for u in utterances(audio + quiet + audio + quiet)]
    assert len(lengths) == 2
    assert lengths[0] == pytest.approx(lengths[1], abs=0.1)


async def test_a_soft_voice_is_understood(speak: Speak, recognizer: PocketsphinxRecognizer) -> None:
    audio = np.frombuffer(await speak("what time is it"), np.int16)
    (utterance,) = utterances((audio // 12).astype(np.int16).tobytes())
    assert (await recognizer.recognize(utterance.pcm, hints=PHRASES)).text == "What time is it?"


async def test_one_speaker_leaves_no_trace_in_what_the_next_one_is_heard_to_say(
    speak: Speak, noises: dict[str, bytes], recognizer: PocketsphinxRecognizer
) -> None:
    audio = await speak("order a pizza")
    before = await recognizer.recognize(audio, hints=PHRASES)
    await recognizer.recognize(noises["bursts"], hints=PHRASES)
    await recognizer.recognize(await speak("hello", voice="en-us+f3"), hints=["hello"])
    assert await recognizer.recognize(audio, hints=PHRASES) == before


async def test_what_espeak_says_can_be_heard_at_once(synthesizer: EspeakSynthesizer) -> None:
    first = await anext(synthesizer.synthesize("crash"))
    assert any(first[: len(first) // 2])
