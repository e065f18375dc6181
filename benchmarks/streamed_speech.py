"""How soon an agent is heard that is still writing: from a sentence's last character to its first packet.

    python benchmarks/streamed_speech.py [--json]

Takes some twenty seconds. A real agent in a confined child writes a word every 30 ms, as a language model
does; its sentences are synthesized and leave as Opus packets, paced by the track. The floor is a sentence
that the same agent gives to `speak` as a whole. The aim: no more than 1.5 times that; a sentence is known to
be over when the word behind it comes, which is counted from.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from voicethere.adapters.rtc.opus import SILENCE
from voicethere.adapters.rtc.outbound import SpeechTrack
from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.adapters.speech.espeak import EspeakSynthesizer
from voicethere.core.clock import SystemClock
from voicethere.roles.runner.agent_child import AgentChild, AgentEvent, AgentSpec
from voicethere.roles.runner.agent_events import Spoken
from voicethere.roles.runner.agent_speech import AgentSpeech
from voicethere.roles.runner.speaking import Speaker, SpeakerEvents
from voicethere.wire import ipc

AIM = 1.5
ROUNDS = 40
SENTENCE = "It is three in the afternoon."

AGENT = f"""
import asyncio, time
from voicethere.agent import define_agent, send_to_client, speak

SENTENCE = {SENTENCE!r}

async def write(session_id):
    for word in SENTENCE.split():
        yield word + " " if not word.endswith(".") else word
        await asyncio.sleep(0.03)
    send_to_client(session_id, time.monotonic())
    yield " And"
    await asyncio.sleep(3600)

async def message(ctx):
    if ctx.message == "stream":
        speak(ctx.session_id, write(ctx.session_id))
    else:
        send_to_client(ctx.session_id, time.monotonic())
        speak(ctx.session_id, SENTENCE)

define_agent(on_data_channel_message=message)
"""


class Bench:
    """One session's agent and its voice; `heard` is set by the first packet that is no silence."""

    def __init__(self, child: AgentChild, synthesizer: EspeakSynthesizer) -> None:
        self.child = child
        self.started = asyncio.Event()
        self.heard = asyncio.Event()
        self.written_at = 0.0
        self.heard_at = 0.0
        self.track = SpeechTrack()
        events = SpeakerEvents(announce=lambda text: None, speech_event=lambda *event: None)
        self.speaker = Speaker(synthesizer=synthesizer, track=lambda: self.track, events=events)
        self._speech = AgentSpeech(self.speaker, spoke=lambda spoken: None)

    def on_event(self, event: AgentEvent) -> None:
        match event:
            case ipc.SessionStartAck():
                self.started.set()
            case ipc.SendToClient(payload=payload):
                self.written_at = json.loads(payload)
            case ipc.Speak() | ipc.SpeakStart() | ipc.SpeakText() | ipc.SpeakEnd():
                self._speak(event)

    def _speak(self, spoken: Spoken) -> None:
        def done(interrupted: bool) -> None:
            self.child.send(
                ipc.SpeechDone(session_id="s", speech_id=spoken.speech_id, interrupted=interrupted)
            )

        self._speech.take(spoken, done)

    async def play(self) -> None:
        while True:
            if bytes(await self.track.recv()) != SILENCE and not self.heard.is_set():
                self.heard_at = time.monotonic()
                self.heard.set()

    async def round(self, how: str) -> float:
        self.heard.clear()
        self.child.send(ipc.DataChannelMessage(session_id="s", raw=json.dumps(how)))
        async with asyncio.timeout(30):
            await self.heard.wait()
        seconds = self.heard_at - self.written_at
        self.speaker.stop()
        await self.speaker.drained()
        await asyncio.sleep(0.1)
        return seconds


async def measure() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        bundle.mkdir()
        (bundle / "agent.py").write_text(AGENT)
        sandbox = ZygoteSandbox(preload=["voicethere.agent.child"], scratch_root=Path(folder) / "scratch")
        synthesizer = EspeakSynthesizer()
        loaded = asyncio.Event()
        bench: Bench | None = None

        def on_event(event: AgentEvent) -> None:
            if isinstance(event, ipc.AgentLoaded):
                loaded.set()
            elif bench is not None:
                bench.on_event(event)

        child = AgentChild(
            sandbox,
            spec=AgentSpec(bundle_dir=bundle, environment={}),
            on_event=on_event,
            clock=SystemClock(),
            redact=lambda text: text,
        )
        bench = Bench(child, synthesizer)
        try:
            await child.start()
            await loaded.wait()
            child.session_start(ipc.SessionStart(session_id="s", project_id="p", build_id="b", env={}))
            await bench.started.wait()
            return await rounds(bench)
        finally:
            await child.stop(0)
            await bench.speaker.aclose()
            bench.track.stop()
            await synthesizer.aclose()
            await sandbox.aclose()


async def rounds(bench: Bench) -> dict[str, object]:
    playing = asyncio.create_task(bench.play())
    try:
        times: dict[str, list[float]] = {"stream": [], "whole": []}
        for number in range(ROUNDS + 2):
            for how, found in times.items():
                seconds = await bench.round(how)
                if number >= 2:  # the first ones wake everything up
                    found.append(seconds)
    finally:
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
    floor, streamed = (statistics.median(times[how]) for how in ("whole", "stream"))
    return {
        "streamed_ms": milliseconds(times["stream"]),
        "floor_whole_sentence_ms": milliseconds(times["whole"]),
        "times_the_floor": round(streamed / floor, 2),
        "aim": AIM,
        "met": streamed / floor <= AIM,
    }


def milliseconds(times: list[float]) -> dict[str, float]:
    return {
        "p50": round(statistics.median(times) * 1000, 2),
        "max": round(max(times) * 1000, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    results = {"machine": machine} | asyncio.run(measure())
    if arguments.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
