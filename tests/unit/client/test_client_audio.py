"""Sources and sinks of a client's audio."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from voicethere.client.audio import BufferSink, WavSource, rms


def write_wav(path: Path, samples: np.ndarray, rate: int, channels: int, width: int = 2) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


async def test_a_stereo_file_is_mixed(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    write_wav(path, np.array([[100, 300], [-100, 100]] * 5000, np.int16), 16_000, 2)
    source = WavSource(path)
    pcm = b"".join([chunk async for chunk in source.chunks()])
    assert source.sample_rate == 16_000
    assert np.frombuffer(pcm, np.int16).tolist() == [200, 0] * 5000


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "no.wav").write_bytes(b"RIFF, but not really")
    with pytest.raises(ValueError, match="not a WAV file"):
        WavSource(tmp_path / "no.wav")
    write_wav(tmp_path / "wide.wav", np.zeros(8, np.int32), 8000, 1, 4)
    with pytest.raises(ValueError, match="32-bit"):
        WavSource(tmp_path / "wide.wav")
    with pytest.raises(FileNotFoundError):
        WavSource(tmp_path / "missing.wav")


def test_a_buffer_knows_when_it_became_loud_and_forgets_the_oldest() -> None:
    sink = BufferSink(max_seconds=1.0)
    quiet, loud = bytes(960), np.full(480, 16_384, np.int16).tobytes()
    for _ in range(10):
        sink.write(quiet, 48_000)
    moment = sink.first_sound_since()
    assert moment is None
    sink.write(loud, 48_000)
    assert sink.first_sound_since() is not None
    assert sink.sound_seconds_since() == pytest.approx(0.01)
    assert rms(loud) == pytest.approx(0.5)
    for _ in range(200):
        sink.write(quiet, 48_000)
    assert sink.seconds == pytest.approx(1.0, abs=0.02)
    assert sink.rms_since() == 0
    assert rms(b"") == 0
