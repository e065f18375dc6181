"""The recognizer: hints of every kind, several sessions, processes that hang or are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from voicethere.adapters.speech.phrases import MAX_PHRASES
from voicethere.adapters.speech.pocketsphinx_recognizer import PocketsphinxRecognizer
from voicethere.core.ports import SpeechProviderError

Speak = Callable[..., Awaitable[bytes]]


async def test_the_hint_comes_back_in_its_own_spelling(
    speak: Speak, recognizer: PocketsphinxRecognizer
) -> None:
    hints = ["Turn ON lamp #2, please!", "Stop.", "stop"]
    heard = await recognizer.recognize(await speak("turn on lamp number two please"), hints=hints)
    assert heard.text == "Turn ON lamp #2, please!"
    assert heard.confidence is not None
    assert 0 < heard.confidence <= 1


async def test_words_that_no_dictionary_lists_are_recognized_by_a_guess(
    speak: Speak, recognizer: PocketsphinxRecognizer
) -> None:
    hints = ["open VoiceThere", "open the window", "frobnicate the widget", "stop"]
    assert (
        await recognizer.recognize(await speak("open voice there"), hints=hints)
    ).text == "open VoiceThere"
    heard = await recognizer.recognize(await speak("frobnicate the widget"), hints=hints)
    assert heard.text == "frobnicate the widget"


async def test_hints_that_cannot_be_recognized_are_named_and_do_no_harm(
    speak: Speak, recognizer: PocketsphinxRecognizer
) -> None:
    hints = ["открой дверь", "", "</s>", "<sil>", "x" * 300, "open VoiceThere", "good night"]
    too_long = "it holds no words, or more than 24 words or 200 characters"
    assert [
        (problem.hint, problem.words, problem.recognizable, problem.reason)
        for problem in await recognizer.unknown_words(hints)
    ] == [
        ("открой дверь", ("открой", "дверь"), False, "no pronunciation is known for открой, дверь"),
        ("", (), False, too_long),
        ("x" * 300, (), False, too_long),
        ("open VoiceThere", ("voicethere",), True, "the pronunciation of voicethere was guessed"),
    ]
    assert (await recognizer.recognize(await speak("good night"), hints=hints)).text == "good night"


@pytest.mark.parametrize("hints", [["открой"], ["!!!", ""]])
async def test_no_hint_that_can_be_recognized_is_an_error(
    recognizer: PocketsphinxRecognizer, hints: list[str]
) -> None:
    with pytest.raises(SpeechProviderError, match="none of the"):
        await recognizer.recognize(bytes(32_000), hints=hints)


async def test_hints_are_never_read_as_a_grammar(speak: Speak, recognizer: PocketsphinxRecognizer) -> None:
    hints = ["good | bad", "night;", "public <x> = good night;", "#JSGF V1.0;", "good* night+"]
    assert (await recognizer.recognize(await speak("good night"), hints=hints)).text == ""
    assert (await recognizer.recognize(await speak("good bad"), hints=hints)).text == "good | bad"


async def test_too_many_hints_and_too_long_audio_are_refused(recognizer: PocketsphinxRecognizer) -> None:
    with pytest.raises(SpeechProviderError, match=r"501 commands are too many .* at most 500"):
        await recognizer.recognize(bytes(3200), hints=["go"] * (MAX_PHRASES + 1))
    with pytest.raises(SpeechProviderError, match=r"61 s is too long .* at most 60 s"):
        await recognizer.recognize(bytes(61 * 32_000), hints=["go"])


async def test_many_hints_and_many_sets_of_them_work(
    speak: Speak, recognizer: PocketsphinxRecognizer
) -> None:
    audio = await speak("good night")
    names = ["alpha", "bravo", "charlie", "delta", "echo"]
    many = [f"call {name} number {n}" for name in names for n in range(99)]
    assert (await recognizer.recognize(audio, hints=[*many, "good night"])).text == "good night"
    for n in range(40):  # more sets than are kept
        assert (await recognizer.recognize(audio, hints=[f"room {n}", "good night"])).text == "good night"


async def test_without_hints_it_takes_dictation_of_a_kind(
    speak: Speak, recognizer: PocketsphinxRecognizer
) -> None:
    heard = await recognizer.recognize(await speak("hello my friend how are you"), hints=[])
    assert "you" in heard.text.split()
    again = await recognizer.recognize(await speak("good night"), hints=["good night"])
    assert again.text == "good night"


async def test_a_process_killed_mid_request_fails_that_request_only(
    speak: Speak, recognizer: PocketsphinxRecognizer
) -> None:
    audio = await speak("good night")
    await recognizer.open()
    (pid,) = recognizer.pids
    os.kill(pid, signal.SIGSTOP)  # so that the request is surely under way
    asking = asyncio.create_task(recognizer.recognize(audio, hints=["good night"]))
    while recognizer.pids:  # noqa: ASYNC110 - one turn of the loop starts the request
        await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(
        SpeechProviderError, match=r"recognizer \(pocketsphinx\)'s process was killed by SIGKILL"
    ):
        await asking
    assert (await recognizer.recognize(audio, hints=["good night"])).text == "good night"
    assert pid not in recognizer.pids


async def test_a_process_that_hangs_is_killed_and_replaced(speak: Speak) -> None:
    recognizer = PocketsphinxRecognizer(timeout_seconds=0.5)
    try:
        await recognizer.open()
        (pid,) = recognizer.pids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(SpeechProviderError, match=r"did not answer within 0\.5 s"):
            await recognizer.recognize(bytes(32_000), hints=["good night"])
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        recognizer._pool._timeout = 60  # the next one works, however slowly on a loaded machine
        assert (await recognizer.recognize(bytes(32_000), hints=["good night"])).text == ""
    finally:
        await recognizer.aclose()


async def test_too_many_waiting_are_refused_at_once_and_the_rest_is_served(speak: Speak) -> None:
    audio = await speak("good night")
    recognizer = PocketsphinxRecognizer(waiting=2, timeout_seconds=60)
    try:
        await recognizer.open()
        results = await asyncio.gather(
            *(recognizer.recognize(audio, hints=["good night"]) for _ in range(5)), return_exceptions=True
        )
    finally:
        await recognizer.aclose()
    refused = [result for result in results if isinstance(result, SpeechProviderError)]
    assert [str(error) for error in refused] == [
        "the speech recognizer (pocketsphinx) is overloaded: 2 requests are waiting"
    ] * 2
    assert [r.text for r in results if not isinstance(r, BaseException)] == ["good night"] * 3


async def test_closing_fails_what_is_under_way_and_waiting(recognizer: PocketsphinxRecognizer) -> None:
    await recognizer.open()
    (pid,) = recognizer.pids
    os.kill(pid, signal.SIGSTOP)
    asking = [
        asyncio.create_task(recognizer.recognize(bytes(32_000), hints=["good night"])) for _ in range(3)
    ]
    while recognizer.pids:  # noqa: ASYNC110 - one turn of the loop starts the request
        await asyncio.sleep(0)
    await recognizer.aclose()
    for result in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(result, SpeechProviderError)
        assert "closed" in str(result)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
