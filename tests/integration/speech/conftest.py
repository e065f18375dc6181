"""Speech and noise for the tests: what espeak-ng says, as a recognizer gets it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import av
import numpy as np
import pytest

from voicethere.adapters.speech.espeak import EspeakSynthesizer
from voicethere.adapters.speech.pocketsphinx_recognizer import PocketsphinxRecognizer

RATE = 16_000
Speak = Callable[..., Awaitable[bytes]]


def at_16_khz(pcm: bytes, sample_rate: int) -> np.ndarray:
    """PCM as float samples at 16 kHz."""
    frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, np.int16)[None], "s16", "mono")
    frame.sample_rate = sample_rate
    resampler = av.AudioResampler("s16", "mono", RATE)
    parts = [part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate(parts).astype(float)


@pytest.fixture
async def speak() -> AsyncIterator[Speak]:
    """`await speak(text)`: 16-kHz PCM with quiet around it and the noise of a room over it."""
    synthesizers: dict[tuple[str, int], EspeakSynthesizer] = {}

    async def spoken(
        text: str, *, voice: str = "en-us", words_per_minute: int = 175, noise: float = 40.0
    ) -> bytes:
        if (voice, words_per_minute) not in synthesizers:
            made = EspeakSynthesizer(voice=voice, words_per_minute=words_per_minute)
            synthesizers[voice, words_per_minute] = made
        synthesizer = synthesizers[voice, words_per_minute]
        pcm = b"".join([chunk async for chunk in synthesizer.synthesize(text)])
        speech = at_16_khz(pcm, synthesizer.sample_rate) * 0.5
        samples = np.concatenate([np.zeros(RATE // 2), speech, np.zeros(RATE)])
        samples += np.random.default_rng(7).normal(size=len(samples)) * noise
        return np.clip(samples, -32768, 32767).astype(np.int16).tobytes()

    yield spoken
    for synthesizer in synthesizers.values():
        await synthesizer.aclose()


@pytest.fixture
async def synthesizer() -> AsyncIterator[EspeakSynthesizer]:
    synthesizer = EspeakSynthesizer()
    yield synthesizer
    await synthesizer.aclose()


@pytest.fixture
async def recognizer() -> AsyncIterator[PocketsphinxRecognizer]:
    # Dictation takes seconds, and on a loaded machine more of them: not what these tests are about.
    recognizer = PocketsphinxRecognizer(timeout_seconds=60)
    yield recognizer
    await recognizer.aclose()


@pytest.fixture(scope="session")
def noises() -> dict[str, bytes]:
    """Three seconds each of what a microphone hears when nobody speaks."""
    time = np.arange(3 * RATE) / RATE
    random = np.random.default_rng(11)
    clicks = np.zeros(len(time))
    clicks[::5555] = 20_000
    kinds = {
        "hiss": random.normal(size=len(time)) * 1500,
        "hum": np.sin(2 * np.pi * 50 * time) * 5000 + np.sin(2 * np.pi * 150 * time) * 1500,
        "whistle": np.sin(2 * np.pi * 1000 * time) * 5000,
        "clicks": clicks,
        "bursts": random.normal(size=len(time)) * (np.sin(2 * np.pi * 3 * time) > 0) * 4000,
        "siren": np.sin(2 * np.pi * (400 + 100 * np.sin(2 * np.pi * time)) * time) * 5000,
    }
    return {name: np.clip(x, -32768, 32767).astype(np.int16).tobytes() for name, x in kinds.items()}
