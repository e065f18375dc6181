"""How many sessions one core can speak in: our outbound path against aiortc's stock encoder.

    python benchmarks/speaking_sessions.py [--peers 6] [--seconds 5] [--rounds 2] [--json]

Real peers, connected over real addresses of this machine: the senders in this process, the receivers in
another one, each of which says how much it heard. Every sender speaks the same speech of the offline
synthesizer (22,050 Hz mono PCM, without long pauses) at the same time, in three ways that take turns:

- ours: `SpeechTrack` with packets of `encode_speech` (mono, 24 kbit/s), encoded within the measured time;
- stock: a track of PCM frames of 20 ms, which aiortc's own encoder takes (stereo, 96 kbit/s);
- silent: a connection that nobody speaks on, which is the floor of both.

Measured is the CPU time of this process alone, all threads, from the first word until the last is played. The
receivers listen only, so that nothing inbound is counted. The aim: twice as many sessions per core as the
stock encoder. It takes about 50 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fractions
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import av
import numpy as np
from aiortc.codecs.opus import OpusEncoder as StockEncoder
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from rich.console import Console
from rich.table import Table

from voicethere.adapters.rtc.client_peer import INBOUND_SAMPLE_RATE, ClientPeer
from voicethere.adapters.rtc.events import AudioReceived, ControlClosed, ControlOpened, PeerEvent, SyncOpened
from voicethere.adapters.rtc.opus import FRAME_SECONDS, encode_all, encode_speech
from voicethere.adapters.rtc.server_peer import ServerPeer
from voicethere.adapters.speech.suite import OfflineSpeech

AIM = 2.0
LIMIT_SECONDS = 20.0
SETTLE_SECONDS = 1.0
"""Between connected and speaking: the track's first half second of silence goes out at full rate."""
CHUNK_SECONDS = 0.1
ENCODINGS = 5
SOUND = 0.005
"""The rms from which 20 ms count as heard."""
TEXT = (
    "The quick brown fox jumps over the lazy dog and then goes on to tell everybody who wants to hear it "
    "how very lazy that dog has been since the beginning of the year and why it will never ever change "
)
"""Repeated until it is long enough; no punctuation, so no pauses."""


async def speech(seconds: float) -> tuple[bytes, int]:
    """s16 mono PCM of just that length, and its rate in Hz."""
    offline = OfflineSpeech()
    await offline.open()
    try:
        rate = offline.synthesizer.sample_rate
        wanted, pcm = int(seconds * rate) * 2, b""
        while len(pcm) < wanted:
            pcm += b"".join([chunk async for chunk in offline.synthesizer.synthesize(TEXT)])
        return pcm[:wanted], rate
    finally:
        await offline.aclose()


def in_frames(pcm: bytes, size: int) -> list[np.ndarray[Any, np.dtype[np.int16]]]:
    """Whole frames of `size` samples each."""
    samples = np.frombuffer(pcm, np.int16)
    return [samples[at : at + size] for at in range(0, len(samples) - size + 1, size)]


def pcm_frame(samples: np.ndarray[Any, np.dtype[np.int16]], rate: int, pts: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[np.newaxis, :], format="s16", layout="mono")
    frame.sample_rate = rate
    frame.time_base = fractions.Fraction(1, rate)
    frame.pts = pts
    return frame


class PcmTrack(MediaStreamTrack):
    """The stock way: frames of 20 ms of PCM, paced by the clock, for aiortc to encode."""

    kind = "audio"

    def __init__(self, pcm: bytes, rate: int) -> None:
        super().__init__()
        self._rate = rate
        self._size = int(rate * FRAME_SECONDS)
        self._frames = in_frames(pcm, self._size)
        self._silence = np.zeros(self._size, np.int16)
        self._origin: float | None = None
        self._sent = 0
        self._speaks_from: int | None = None
        self.played = asyncio.Event()

    def speak(self) -> None:
        self._speaks_from = self._sent

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        if self._origin is None:
            self._origin = loop.time()
        await asyncio.sleep(max(0.0, self._origin + self._sent * FRAME_SECONDS - loop.time()))
        data = self._silence
        if self._speaks_from is not None:
            spoken = self._sent - self._speaks_from
            if spoken < len(self._frames):
                data = self._frames[spoken]
            else:
                self.played.set()
        self._sent += 1
        return pcm_frame(data, self._rate, (self._sent - 1) * self._size)


class Sender:
    """One session's end of the connection on the platform's side; says `pcm` its own `way`."""

    def __init__(self, way: str, pcm: bytes, rate: int) -> None:
        self._pcm = pcm
        self._rate = rate
        self._opened = 0
        self._open = asyncio.Event()
        self._stock = PcmTrack(pcm, rate) if way == "stock" else None
        self._silent = way == "silent"
        self.peer = ServerPeer(audio=True, on_event=self._on_event)
        self._rtp = self.peer._connection.getSenders()[0]
        if self._stock is not None:
            self._rtp.replaceTrack(self._stock)

    def _on_event(self, event: PeerEvent) -> None:
        if isinstance(event, ControlOpened | SyncOpened):
            self._opened += 1
            if self._opened == 2:
                self._open.set()

    async def opened(self) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            await self._open.wait()

    async def speak(self) -> None:
        """Until all is played, or silence as long as that."""
        if self._silent:
            await asyncio.sleep(len(self._pcm) / 2 / self._rate)
        elif self._stock is not None:
            self._stock.speak()
            await self._stock.played.wait()
        else:
            assert self.peer.speech is not None
            await self.peer.speech.play(encode_speech(chunks(self._pcm, self._rate), self._rate)).finished()

    async def bytes_sent(self) -> int:
        """Bytes of Opus so far, without headers."""
        report = await self._rtp.getStats()
        return sum(stats.bytesSent for stats in report.values() if stats.type == "outbound-rtp")

    async def close(self) -> None:
        await self.peer.close()
        if self._stock is not None:
            self._stock.stop()


async def chunks(pcm: bytes, rate: int) -> AsyncIterator[bytes]:
    """The PCM as a synthesizer gives it."""
    size = int(CHUNK_SECONDS * rate) * 2
    for at in range(0, len(pcm), size):
        yield pcm[at : at + size]


async def measure_encoding(pcm: bytes, rate: int) -> dict[str, float]:
    """CPU seconds that encoding alone takes for a second of speech, our way and the stock one."""
    size = int(rate * FRAME_SECONDS)
    ours, stock = [], []
    for _ in range(ENCODINGS):
        began = time.process_time()
        await encode_all(chunks(pcm, rate), rate)
        ours.append(time.process_time() - began)
        encoder = StockEncoder()
        began = time.process_time()
        for nth, samples in enumerate(in_frames(pcm, size)):
            encoder.encode(pcm_frame(samples, rate, nth * size))
        stock.append(time.process_time() - began)
    seconds = len(pcm) / 2 / rate
    return {"ours": statistics.median(ours) / seconds, "stock": statistics.median(stock) / seconds}


async def measure_once(way: str, peers: int, pcm: bytes, rate: int) -> dict[str, float]:
    """CPU seconds per second of speech and session, bytes per second and session, share of speech heard."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--receive",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    senders = [Sender(way, pcm, rate) for _ in range(peers)]
    try:
        for sender in senders:
            child.stdin.write(json.dumps(await sender.peer.offer()).encode() + b"\n")
            await sender.peer.answer(json.loads(await child.stdout.readline()))
        for sender in senders:
            await sender.opened()
        await asyncio.sleep(SETTLE_SECONDS)
        sent = sum([await sender.bytes_sent() for sender in senders])
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(sender.speak() for sender in senders))
        cpu, took = time.process_time() - cpu, time.perf_counter() - began
        sent = sum([await sender.bytes_sent() for sender in senders]) - sent
        await asyncio.sleep(SETTLE_SECONDS)  # what the receivers' jitter buffers still hold
        child.stdin.write(b"null\n")
        heard = json.loads(await child.stdout.readline())
    finally:
        for sender in senders:
            await sender.close()
        child.stdin.close()
        await child.wait()
    seconds = len(pcm) / 2 / rate
    share = min(heard) / seconds
    if way != "silent" and share < 0.7:
        raise SystemExit(f"{way}: a receiver heard {min(heard):.1f} of {seconds:g} s: not a fair comparison")
    return {
        "cpu_per_second": cpu / peers / seconds,
        "bytes_per_second": sent / peers / seconds,
        "heard": share,
        "took_seconds": took,
    }


class Receiver:
    """A client that listens, and counts the sound in what it hears."""

    def __init__(self) -> None:
        self.seconds_heard = 0.0
        self.closed = asyncio.Event()
        self.peer = ClientPeer(audio=False, on_event=self._on_event)

    def _on_event(self, event: PeerEvent) -> None:
        if isinstance(event, AudioReceived):
            samples = np.frombuffer(event.pcm, np.int16).astype(np.float32) / 32768
            if samples.size and float(np.sqrt(np.mean(samples**2))) > SOUND:
                self.seconds_heard += samples.size / INBOUND_SAMPLE_RATE
        elif isinstance(event, ControlClosed):
            self.closed.set()


async def _receive() -> None:
    """The receivers' process: offers on stdin, answers on stdout; `null` asks how much was heard."""
    receivers: list[Receiver] = []
    while (offer := json.loads(await asyncio.to_thread(sys.stdin.readline))) is not None:
        receivers.append(Receiver())
        print(json.dumps(await receivers[-1].peer.answer_to(offer)), flush=True)
    print(json.dumps([receiver.seconds_heard for receiver in receivers]), flush=True)
    for receiver in receivers:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_SECONDS):
                await receiver.closed.wait()
        await receiver.peer.close()


WAYS = {
    "ours": "ours: SpeechTrack, packets of encode_speech",
    "stock": "stock: PCM frames, aiortc's encoder",
    "silent": "floor: connected, nobody speaks",
}


async def measure(peers: int, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """The median of all rounds per way."""
    pcm, rate = await speech(seconds)
    taken: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, results in taken.items():
            results.append(await measure_once(way, peers, pcm, rate))
    figures: dict[str, dict[str, float]] = {}
    for way, results in taken.items():
        middle = {key: statistics.median(each[key] for each in results) for key in results[0]}
        middle["sessions_per_core"] = 1 / middle["cpu_per_second"]
        figures[way] = middle
    for way, seconds_taken in (await measure_encoding(pcm, rate)).items():
        figures[way]["encoding_per_second"] = seconds_taken
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, default=6, help="who speak at the same time")
    parser.add_argument("--seconds", type=float, default=5.0, help="of speech; 10 at most are encoded ahead")
    parser.add_argument("--rounds", type=int, default=2, help="of all three ways")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        asyncio.run(_receive())
        return 0
    figures = asyncio.run(measure(arguments.peers, arguments.seconds, arguments.rounds))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}"
    ratio: dict[str, float] = {
        "sessions_per_core": figures["ours"]["sessions_per_core"] / figures["stock"]["sessions_per_core"],
        "bytes_per_second": figures["stock"]["bytes_per_second"] / figures["ours"]["bytes_per_second"],
    }
    if arguments.json:
        report: dict[str, Any] = {"machine": machine, "ways": figures, "ratio": ratio, "aim": AIM}
        print(json.dumps(report))
        return 0
    table = Table(title=f"{arguments.peers} sessions speak at once ({machine})")
    table.add_column("", min_width=43)
    for column in ("CPU per s of speech", "encoding alone", "sessions per core", "bytes/s", "heard"):
        table.add_column(column, justify="right")
    for way, label in WAYS.items():
        row = figures[way]
        table.add_row(
            label,
            f"{row['cpu_per_second'] * 1000:.1f} ms",
            f"{row['encoding_per_second'] * 1000:.1f} ms" if "encoding_per_second" in row else "",
            f"{row['sessions_per_core']:.0f}",
            f"{row['bytes_per_second']:.0f}",
            "" if way == "silent" else f"{row['heard']:.0%}",
        )
    verdict = "met" if ratio["sessions_per_core"] >= AIM else "missed"
    table.caption = (
        f"{ratio['sessions_per_core']:.2f} times the sessions per core (aim: {AIM:g}, {verdict}), "
        f"{ratio['bytes_per_second']:.1f} times fewer bytes."
    )
    Console(width=130).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
