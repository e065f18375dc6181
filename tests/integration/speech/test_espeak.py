"""espeak-ng behind its port: hostile text, cancellation, several speakers, a process that is killed."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from contextlib import aclosing
from pathlib import Path

import espeakng_loader
import pytest

from voicethere.adapters.speech.espeak import EspeakSynthesizer
from voicethere.adapters.speech.spoken_text import MAX_TEXT_CHARS
from voicethere.core.ports import SpeechProviderError


async def seconds_of(synthesizer: EspeakSynthesizer, text: str) -> float:
    chunks = [chunk async for chunk in synthesizer.synthesize(text)]
    return len(b"".join(chunks)) / 2 / synthesizer.sample_rate


@pytest.mark.parametrize(
    "text",
    [
        "\0",
        "%s%n%x" * 20,
        "<speak><break time='600s'/></speak>" * 5,
        "[[" * 100,
        "\x01\x0130P\x01+9S" * 20,
        "\ud800\udfff",
        "\U0010ffff\ufdd0" * 50,
        "a\u0301" * 200,
        "😀🎉👨\u200d👩\u200d👧" * 30,
        "١٢٣" * 60,
        "9" * 700,
        "((((((" + "))))))" * 40,
        "\u202e" * 500 + "x",
        "I" * 900,
        "://" * 300,
    ],
)
async def test_hostile_text_is_spoken_or_not_but_harms_nothing(
    synthesizer: EspeakSynthesizer, text: str
) -> None:
    assert await seconds_of(synthesizer, text) < 600
    assert 0.2 < await seconds_of(synthesizer, "still here") < 2


async def test_markup_is_read_out_and_not_obeyed(synthesizer: EspeakSynthesizer) -> None:
    assert await seconds_of(synthesizer, "<break time='20s'/>hello") < 10
    assert await seconds_of(synthesizer, "[[h@l'oU]]") > 1.5 * await seconds_of(synthesizer, "hello")


async def test_too_much_text_is_refused_with_both_numbers(synthesizer: EspeakSynthesizer) -> None:
    with pytest.raises(SpeechProviderError, match=r"10001 characters are too many .* at most 10000"):
        await anext(synthesizer.synthesize("x" * (MAX_TEXT_CHARS + 1)))


async def test_long_text_is_made_as_it_is_taken(synthesizer: EspeakSynthesizer) -> None:
    text = "This is a sentence of some length that goes on. " * 200
    async with aclosing(synthesizer.synthesize(text)) as chunks:  # type: ignore[type-var]
        taken = [await anext(chunks) for _ in range(5)]
        assert all(taken)
        # While one listener dawdles over many minutes of speech, others are served.
        assert await seconds_of(synthesizer, "hello") > 0.2


async def test_a_cancelled_listener_disturbs_nobody(synthesizer: EspeakSynthesizer) -> None:
    await synthesizer.open()
    before = synthesizer.pids
    for _ in range(20):
        task = asyncio.create_task(seconds_of(synthesizer, "one two three four five six"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await seconds_of(synthesizer, "hello") > 0.2
    assert synthesizer.pids == before


async def test_many_speak_at_once(synthesizer: EspeakSynthesizer) -> None:
    lengths = await asyncio.gather(*(seconds_of(synthesizer, "good morning") for _ in range(20)))
    assert max(lengths) - min(lengths) < 0.05


async def test_a_faster_voice_is_faster() -> None:
    slow, fast = EspeakSynthesizer(words_per_minute=100), EspeakSynthesizer(words_per_minute=300)
    try:
        text = "the weather is fine today"
        assert await seconds_of(slow, text) > 1.8 * await seconds_of(fast, text)
    finally:
        await slow.aclose()
        await fast.aclose()


async def test_an_unknown_voice_is_named() -> None:
    synthesizer = EspeakSynthesizer(voice="klingon-9")
    try:
        with pytest.raises(SpeechProviderError, match="no voice 'klingon-9'"):
            await synthesizer.open()
    finally:
        await synthesizer.aclose()


def test_an_impossible_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="10; espeak-ng speaks 80 to 450"):
        EspeakSynthesizer(words_per_minute=10)


async def test_it_speaks_on_after_its_process_was_killed(synthesizer: EspeakSynthesizer) -> None:
    await synthesizer.open()
    (pid,) = synthesizer.pids
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    try:
        assert select.select([pidfd], [], [], 10)[0]
    finally:
        os.close(pidfd)
    assert await seconds_of(synthesizer, "hello") > 0.2
    assert pid not in synthesizer.pids


async def test_data_in_a_very_long_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """espeak-ng cuts long paths and then speaks nothing."""
    package = tmp_path.joinpath(*["a-folder-with-quite-a-long-name"] * 12)
    package.mkdir(parents=True)
    data = package / "espeak-ng-data"
    data.symlink_to(espeakng_loader.get_data_path())
    (package / "espeakng_loader.py").write_text(
        f"def get_library_path(): return {espeakng_loader.get_library_path()!r}\n"
        f"def get_data_path(): return {str(data)!r}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package))
    synthesizer = EspeakSynthesizer()
    try:
        assert await seconds_of(synthesizer, "hello") > 0.2
    finally:
        await synthesizer.aclose()
