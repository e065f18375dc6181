"""Speech as Opus packets: mono, 48 kHz, 24 kbit/s, 20 ms each.

Knows how to turn PCM into packets, not when they are sent (`outbound`). Encoding a second of speech costs
about 6 ms, so the work is done on the event loop, in slices that it hardly notices, and needs no thread.
"""

from __future__ import annotations

import asyncio
import fractions
from collections.abc import AsyncIterator

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

SAMPLE_RATE = 48_000
"""Hz: the only rate that Opus has on the wire."""
FRAME_SAMPLES = 960
FRAME_SECONDS = FRAME_SAMPLES / SAMPLE_RATE
FRAME_BYTES = FRAME_SAMPLES * 2
BIT_RATE = 24_000
TIME_BASE = fractions.Fraction(1, SAMPLE_RATE)

SILENCE = b"\xf8\xff\xfe"
"""One packet of 20 ms of silence."""

_FRAMES_PER_SLICE = 8
"""About a millisecond of work between two looks at the event loop."""


class OpusEncoder:
    """Encodes a stream of PCM; keeps what does not fill a packet for the next call.

    Example:
        >>> encoder = OpusEncoder()
        >>> packets = encoder.encode(bytes(FRAME_BYTES)) + encoder.finish()
    """

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "w")
        assert isinstance(codec, AudioCodecContext)
        codec.bit_rate = BIT_RATE
        codec.format = "s16"
        codec.layout = "mono"
        codec.sample_rate = SAMPLE_RATE
        codec.time_base = TIME_BASE
        # libopus's own default for complexity costs nearly twice the processor time of this one, for a
        # difference that speech at this rate hardly has: see benchmarks/speaking_sessions.py.
        codec.options = {"application": "voip", "frame_duration": "20", "compression_level": "3"}
        self._codec = codec
        self._rest = b""
        self._pts = 0

    def encode(self, pcm_48k_mono_s16: bytes) -> list[bytes]:
        """Packets for the whole frames there are now."""
        pcm = self._rest + pcm_48k_mono_s16 if self._rest else pcm_48k_mono_s16
        whole = len(pcm) - len(pcm) % FRAME_BYTES
        self._rest = pcm[whole:]
        packets: list[bytes] = []
        for start in range(0, whole, FRAME_BYTES):
            packets += self._encode_frame(pcm[start : start + FRAME_BYTES])
        return packets

    def finish(self) -> list[bytes]:
        """The last packets, padded with silence. The encoder is spent afterwards."""
        packets: list[bytes] = []
        if self._rest:
            packets += self._encode_frame(self._rest.ljust(FRAME_BYTES, b"\0"))
            self._rest = b""
        if self._pts:
            packets += [bytes(packet) for packet in self._codec.encode(None)]
        return packets

    def _encode_frame(self, pcm: bytes) -> list[bytes]:
        frame = audio_frame(pcm, SAMPLE_RATE)
        frame.pts = self._pts
        self._pts += FRAME_SAMPLES
        return [bytes(packet) for packet in self._codec.encode(frame)]


def audio_frame(pcm: bytes, sample_rate: int) -> AudioFrame:
    """s16 mono PCM as a frame of PyAV."""
    frame = AudioFrame.from_ndarray(np.frombuffer(pcm, np.int16)[np.newaxis, :], format="s16", layout="mono")
    frame.sample_rate = sample_rate
    return frame


class PcmResampler:
    """Resamples a stream of s16 mono PCM from one rate to another. Odd bytes wait for their other half."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        if from_rate <= 0 or to_rate <= 0:
            raise ValueError(f"a sample rate is a positive number of Hz, not {from_rate} or {to_rate}")
        self._from_rate = from_rate
        self._resampler = AudioResampler(format="s16", layout="mono", rate=to_rate)
        self._through = from_rate == to_rate
        self._odd = b""

    def resample(self, pcm: bytes) -> bytes:
        """What is ready of the resampled stream."""
        pcm = self._odd + pcm
        even = len(pcm) & ~1
        self._odd = pcm[even:]
        pcm = pcm[:even]
        if self._through or not pcm:
            return pcm
        return _join(self._resampler.resample(audio_frame(pcm, self._from_rate)))

    def finish(self) -> bytes:
        """What was still on its way."""
        return b"" if self._through else _join(self._resampler.resample(None))


def _join(frames: list[AudioFrame]) -> bytes:
    return b"".join(frame.to_ndarray().tobytes() for frame in frames)


async def encode_speech(chunks: AsyncIterator[bytes], sample_rate: int) -> AsyncIterator[bytes]:
    """Packets of 20 ms for PCM chunks of any length, as they come; the last one is padded.

    `sample_rate` is that of `chunks`, in Hz. An exception of `chunks` comes through. Closing this
    iterator closes `chunks`.
    """
    resampler = PcmResampler(sample_rate, SAMPLE_RATE)
    encoder = OpusEncoder()
    try:
        async for chunk in chunks:
            async for packet in _encode_in_slices(encoder, resampler.resample(chunk)):
                yield packet
        async for packet in _encode_in_slices(encoder, resampler.finish()):
            yield packet
        for packet in encoder.finish():
            yield packet
    finally:
        # A cancelled task's traceback keeps this frame alive until the garbage collector comes by; the
        # resampler's worker threads should not wait for that.
        del resampler, encoder
        aclose = getattr(chunks, "aclose", None)
        if aclose is not None:
            await aclose()


async def _encode_in_slices(encoder: OpusEncoder, pcm: bytes) -> AsyncIterator[bytes]:
    step = _FRAMES_PER_SLICE * FRAME_BYTES
    for start in range(0, len(pcm), step):
        for packet in encoder.encode(pcm[start : start + step]):
            yield packet
        await asyncio.sleep(0)


async def encode_all(chunks: AsyncIterator[bytes], sample_rate: int) -> list[bytes]:
    """Everything that `encode_speech` gives: for crash speech, encoded before it is needed."""
    return [packet async for packet in encode_speech(chunks, sample_rate)]
