"""Where a client's audio comes from and goes to: sources and sinks of s16 little-endian mono PCM.

A source only gives PCM; the track paces it and sends silence when it has none. A live source should keep
up with real time.
"""

from __future__ import annotations

import asyncio
import math
import time
import wave
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import numpy as np

_WAV_CHUNK_FRAMES = 4800


class Microphone(Protocol):
    """A source of audio."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    def chunks(self) -> AsyncIterator[bytes]:
        """s16 mono PCM, in chunks of any length. Called once."""


class PcmSink(Protocol):
    """Takes what the agent says. `write` is called on the event loop, 50 times a second: it must be quick.

    A `close()` method, where there is one, is called at the end of the session.
    """

    def write(self, pcm: bytes, sample_rate: int) -> None: ...


class PcmSource:
    """PCM from any async iterator."""

    def __init__(self, sample_rate: int, chunks: AsyncIterator[bytes]) -> None:
        self.sample_rate = sample_rate
        self._chunks = chunks

    def chunks(self) -> AsyncIterator[bytes]:
        return self._chunks


class PcmQueue:
    """A microphone that says what it is given, when it is given; silence in between.

    Example:
        >>> microphone = PcmQueue(16_000)
        >>> async with connect_session(credentials, microphone=microphone) as session:
        ...     microphone.say(pcm)
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def say(self, pcm: bytes) -> None:
        """Queue PCM behind what is still to be said."""
        self._queue.put_nowait(pcm)

    def end(self) -> None:
        """Nothing more will be said."""
        self._queue.put_nowait(None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """What was queued, each followed by 20 ms of silence: it pushes out what the resampler keeps back."""
        while (pcm := await self._queue.get()) is not None:
            yield pcm + bytes(2 * (self.sample_rate // 50))


class WavSource:
    """A WAV file of 16-bit PCM; several channels are mixed to one.

    Raises:
        ValueError: not such a file.
        OSError: it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            with wave.open(str(path), "rb") as file:
                if file.getsampwidth() != 2:
                    raise ValueError(f"{path}: {file.getsampwidth() * 8}-bit samples; 16-bit PCM is needed")
                self.sample_rate = file.getframerate()
                samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
                channels = file.getnchannels()
        except (wave.Error, EOFError) as error:
            raise ValueError(f"{path}: not a WAV file of PCM: {error}") from error
        if channels > 1:
            samples = samples.reshape(-1, channels).mean(axis=1).astype(np.int16)
        self._pcm = samples.tobytes()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's audio."""
        for start in range(0, len(self._pcm), 2 * _WAV_CHUNK_FRAMES):
            yield self._pcm[start : start + 2 * _WAV_CHUNK_FRAMES]


class WavSink:
    """Writes what it hears to a WAV file. The first sample rate it sees is the file's."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._file: wave.Wave_write | None = None

    def write(self, pcm: bytes, sample_rate: int) -> None:
        """Append PCM."""
        if self._file is None:
            self._file = wave.open(str(self._path), "wb")  # noqa: SIM115 - closed by close()
            self._file.setnchannels(1)
            self._file.setsampwidth(2)
            self._file.setframerate(sample_rate)
        self._file.writeframesraw(pcm)

    def close(self) -> None:
        """Complete the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class BufferSink:
    """Keeps the last audio it heard, with the time of its arrival (`time.monotonic()` seconds)."""

    def __init__(self, *, max_seconds: float = 600.0) -> None:
        self._max_seconds = max_seconds
        self._seconds = 0.0
        self._parts: deque[tuple[float, bytes, int]] = deque()

    def write(self, pcm: bytes, sample_rate: int) -> None:
        """Keep PCM; the oldest goes past `max_seconds`."""
        self._parts.append((time.monotonic(), pcm, sample_rate))
        self._seconds += len(pcm) / 2 / sample_rate
        while self._seconds > self._max_seconds:
            _, old, rate = self._parts.popleft()
            self._seconds -= len(old) / 2 / rate

    @property
    def seconds(self) -> float:
        """How much is kept."""
        return self._seconds

    def pcm_since(self, moment: float = -math.inf) -> bytes:
        """Everything that arrived at `moment` or later."""
        return b"".join(pcm for arrived, pcm, _ in self._parts if arrived >= moment)

    def rms_since(self, moment: float = -math.inf) -> float:
        """Loudness (0 to 1) of what arrived since `moment`; 0 where nothing did."""
        return rms(self.pcm_since(moment))

    def first_sound_since(self, moment: float = -math.inf, *, threshold: float = 0.01) -> float | None:
        """When the first part louder than `threshold` (rms) arrived, or None."""
        for arrived, pcm, _ in self._parts:
            if arrived >= moment and rms(pcm) > threshold:
                return arrived
        return None

    def sound_seconds_since(self, moment: float = -math.inf, *, threshold: float = 0.01) -> float:
        """How many seconds of what arrived since `moment` are louder than `threshold` (rms)."""
        return sum(
            len(pcm) / 2 / rate
            for arrived, pcm, rate in self._parts
            if arrived >= moment and rms(pcm) > threshold
        )


def rms(pcm: bytes) -> float:
    """Root mean square of s16 PCM, 0 to 1."""
    samples = np.frombuffer(pcm, np.int16).astype(np.float64)
    return float(np.sqrt(np.mean(samples**2)) / 32768) if len(samples) else 0.0
