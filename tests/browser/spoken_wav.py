"""A WAV file for Chromium's fake microphone: synthesized words with silence around them."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np

from voicethere.adapters.speech.espeak import EspeakSynthesizer

RATE = 48_000
"""Hz; what Chromium captures at."""


async def write_spoken_wav(path: Path, text: str, *, before: float, after: float) -> None:
    """`text` with `before` and `after` seconds of silence, as 16-bit mono PCM."""
    voice = EspeakSynthesizer()
    try:
        spoken = b"".join([chunk async for chunk in voice.synthesize(text)])
    finally:
        await voice.aclose()
    assert spoken, f"the synthesizer said nothing for {text!r}"
    words = _resampled(np.frombuffer(spoken, np.int16), voice.sample_rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(bytes(2 * round(before * RATE)) + words + bytes(2 * round(after * RATE)))


def _resampled(samples: np.ndarray, rate: int) -> bytes:
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return b"".join(part.to_ndarray().tobytes() for part in parts)
