"""What offline speech costs: time to the first audio, and work as a share of real time.

    python benchmarks/speech.py [--json]

Takes some ten seconds. Synthesizer and recognizer include the way to their process and back. Floors are the
same work done in this process, without that way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import av
import espeakng_loader
import numpy as np

from voicethere.adapters.speech.endpointing import Endpointer, SpeechEnded
from voicethere.adapters.speech.espeak_library import EspeakLibrary
from voicethere.adapters.speech.grammar_decoder import GrammarDecoder
from voicethere.adapters.speech.phrases import words_of
from voicethere.adapters.speech.silero_vad import SileroVoiceActivity
from voicethere.adapters.speech.suite import OfflineSpeech

PHRASES = (
    "what time is it",
    "turn on the lights",
    "play some music",
    "tell me a joke",
    "open the door",
    "good morning",
    "where is my phone",
    "please crash now",
)
ROUNDS = 5
RATE = 16_000


def at_16_khz(pcm: bytes, sample_rate: int) -> bytes:
    frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, np.int16)[None], "s16", "mono")
    frame.sample_rate = sample_rate
    resampler = av.AudioResampler("s16", "mono", RATE)
    parts = [part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate(parts).astype(np.int16).tobytes()


def milliseconds(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50": round(statistics.median(ordered) * 1000, 3),
        "max": round(ordered[-1] * 1000, 3),
    }


async def measure() -> dict[str, object]:
    began = time.perf_counter()
    speech = OfflineSpeech()
    await speech.open()
    opened = time.perf_counter() - began
    try:
        return {"open_ms": round(opened * 1000, 1)} | await measure_open(speech)
    finally:
        await speech.aclose()


async def measure_open(speech: OfflineSpeech) -> dict[str, object]:
    rate = speech.synthesizer.sample_rate
    firsts, synthesis, spoken_seconds = [], 0.0, 0.0
    audio: dict[str, bytes] = {}
    for _ in range(ROUNDS):
        for phrase in PHRASES:
            start = time.perf_counter()
            chunks, first = [], 0.0
            async for chunk in speech.synthesizer.synthesize(phrase):
                first = first or time.perf_counter() - start
                chunks.append(chunk)
            synthesis += time.perf_counter() - start
            firsts.append(first)
            pcm = b"".join(chunks)
            spoken_seconds += len(pcm) / 2 / rate
            audio[phrase] = at_16_khz(pcm, rate)

    utterances, listening, heard_seconds = {}, 0.0, 0.0
    for phrase, pcm in audio.items():
        ears = Endpointer(SileroVoiceActivity())
        padded = bytes(RATE) + pcm + bytes(2 * RATE)
        start = time.perf_counter()
        events = [event for i in range(0, len(padded), 640) for event in ears.feed(padded[i : i + 640])]
        listening += time.perf_counter() - start
        heard_seconds += len(padded) / 2 / RATE
        utterances[phrase] = next(event.pcm for event in events if isinstance(event, SpeechEnded))
    quiet = Endpointer(SileroVoiceActivity())
    start = time.perf_counter()
    quiet.feed(bytes(2 * RATE * 30))
    quiet_cost = (time.perf_counter() - start) / 30

    times, right, recognized_seconds = [], 0, 0.0
    for _ in range(ROUNDS):
        for phrase, pcm in utterances.items():
            start = time.perf_counter()
            transcript = await speech.recognizer.recognize(pcm, hints=PHRASES)
            times.append(time.perf_counter() - start)
            right += transcript.text == phrase
            recognized_seconds += len(pcm) / 2 / RATE

    decoder = GrammarDecoder()
    wanted = [words_of(phrase) for phrase in PHRASES]
    decoder.recognize(bytes(RATE), wanted)
    floor = []
    for pcm in utterances.values():
        start = time.perf_counter()
        decoder.recognize(pcm, wanted)
        floor.append(time.perf_counter() - start)

    # Last: it changes this process's working directory.
    library = EspeakLibrary(Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path()))
    library.say("a", voice="en-us", words_per_minute=175)
    synthesis_floor = []
    for phrase in PHRASES:
        start = time.perf_counter()
        library.say(phrase, voice="en-us", words_per_minute=175)
        synthesis_floor.append(time.perf_counter() - start)

    return {
        "synthesizer": {
            "first_audio_ms": milliseconds(firsts),
            "floor_whole_phrase_ms": milliseconds(synthesis_floor),
            "real_time_factor": round(synthesis / spoken_seconds, 5),
        },
        "voice_activity": {
            "real_time_factor_speaking": round(listening / heard_seconds, 4),
            "real_time_factor_quiet": round(quiet_cost, 5),
        },
        "recognizer": {
            "utterance_ms": milliseconds(times),
            "floor_ms": milliseconds(floor),
            "real_time_factor": round(sum(times) / recognized_seconds, 4),
            "exact": f"{right}/{len(times)}",
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    results = {"machine": machine} | asyncio.run(measure())
    if arguments.json:
        print(json.dumps(results))
        return 0
    for name, value in results.items():
        if not isinstance(value, dict):
            print(f"{name}: {value}")
            continue
        for key, figure in value.items():
            print(f"{name}.{key}: {figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
