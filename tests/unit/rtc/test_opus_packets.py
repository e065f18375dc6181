"""Encoding: how many packets, how long, and what they decode to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import av
import numpy as np
import pytest
from av.audio.codeccontext import AudioCodecContext
from av.packet import Packet

from voicethere.adapters.rtc.opus import (
    FRAME_BYTES,
    SILENCE,
    OpusEncoder,
    PcmResampler,
    encode_all,
    encode_speech,
)


def tone(seconds: float, rate: int) -> bytes:
    n = np.arange(int(seconds * rate))
    return (np.sin(2 * np.pi * 440 * n / rate) * 12_000).astype(np.int16).tobytes()


def decoded(packets: list[bytes]) -> np.ndarray:
    codec = av.CodecContext.create("libopus", "r")
    assert isinstance(codec, AudioCodecContext)
    codec.format, codec.layout, codec.sample_rate = "s16", "mono", 48_000
    frames = [frame for data in packets for frame in codec.decode(Packet(data))]
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])


async def in_pieces(pcm: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), size):
        yield pcm[start : start + size]


@pytest.mark.parametrize(("rate", "size"), [(22_050, 1001), (16_000, 640), (48_000, 100_000), (8000, 3)])
async def test_a_second_of_speech_is_a_second_of_packets(rate: int, size: int) -> None:
    packets = await encode_all(in_pieces(tone(1.0, rate), size), rate)
    assert 50 <= len(packets) <= 52
    assert sum(map(len, packets)) * 8 < 40_000
    samples = decoded(packets)[960:47_000]
    assert np.sqrt(np.mean(samples.astype(float) ** 2)) == pytest.approx(12_000 / np.sqrt(2), rel=0.1)
    crossings = np.count_nonzero(np.diff(np.signbit(samples)))
    assert crossings / 2 / (len(samples) / 48_000) == pytest.approx(440, rel=0.02)


async def test_nothing_is_no_packet_and_a_sample_is_some() -> None:
    assert await encode_all(in_pieces(b"", 1), 22_050) == []
    assert OpusEncoder().finish() == []
    assert 1 <= len(await encode_all(in_pieces(b"\1\0", 2), 48_000)) <= 2


def test_silence_is_twenty_milliseconds_of_nothing() -> None:
    samples = decoded([SILENCE])
    assert len(samples) * 2 == FRAME_BYTES
    assert not samples.any()


async def test_closing_the_packets_closes_the_speech_and_failures_come_through() -> None:
    closed = asyncio.Event()

    async def speech() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(9600)
        finally:
            closed.set()

    packets = encode_speech(speech(), 48_000)
    await anext(packets)
    await packets.aclose()  # type: ignore[attr-defined]
    assert closed.is_set()

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(9600)
        raise RuntimeError("no voice")

    with pytest.raises(RuntimeError, match="no voice"):
        await encode_all(broken(), 48_000)


async def test_a_long_chunk_leaves_the_loop_to_others() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    busy = asyncio.create_task(other())
    await encode_all(in_pieces(tone(2.0, 48_000), 1_000_000), 48_000)
    busy.cancel()
    assert turns > 10


def test_rates_that_are_none() -> None:
    with pytest.raises(ValueError, match="positive number of Hz"):
        PcmResampler(0, 48_000)
