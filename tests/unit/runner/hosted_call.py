"""One session as a runner hosts it, with everything around it in memory: for virtual time.

Real are the host, the session's machine, listening, speaking, the audio track and the supply of agents.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.unit.runner.scripted_children import ScriptedChild, ScriptedSandbox
from voicethere.adapters.rtc.opus import SILENCE
from voicethere.adapters.rtc.outbound import SpeechTrack
from voicethere.core.ports import SandboxLimits
from voicethere.roles.runner.agent_supply import AgentSupply
from voicethere.roles.runner.client_leg import OverControlChannel
from voicethere.roles.runner.command_words import CommandWords
from voicethere.roles.runner.connections import ConnectionEvents
from voicethere.roles.runner.crash_speech import CrashSpeech
from voicethere.roles.runner.gauges import RunnerCounts
from voicethere.roles.runner.host import SessionHost
from voicethere.roles.runner.runner_parts import RunnerParts
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.testing.queue import InMemoryErrorQueue
from voicethere.testing.speech import ScriptedRecognizer, ScriptedSpeech, ScriptedSynthesizer, tone
from voicethere.testing.virtual_time import LoopClock
from voicethere.wire.queue import ErrorItem, SessionEndedItem
from voicethere.wire.relay import AssignSession, DeployedAgent
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import SessionSettings

FRAME_SECONDS = 512 / 16_000


class MemoryConnection(OverControlChannel):
    """Stands in for `ClientConnections`: a client that is there, takes everything and plays the audio."""

    def __init__(self, *, events: ConnectionEvents, audio: bool, **_: Any) -> None:
        self.events = events
        self.sent: list[tuple[float, dict[str, Any]]] = []
        self.max_message_size = 65_536
        self.track: SpeechTrack | None = SpeechTrack() if audio else None
        self.audible = 0
        """Packets that are no silence."""
        self._pump = asyncio.create_task(self._play(self.track)) if self.track else None

    async def _play(self, track: SpeechTrack) -> None:
        while True:
            if bytes(await track.recv()) != SILENCE:
                self.audible += 1

    def send_control(self, text: str, *, urgent: bool = False) -> bool:
        self.sent.append((asyncio.get_running_loop().time(), msgspec.json.decode(text)))
        return True

    def send_binary(self, data: bytes, channel: str) -> bool:
        return True

    async def flush(self, seconds: float) -> bool:
        return True

    def joined(self, peer_id: str) -> None: ...

    def left(self, peer_id: str) -> None: ...

    def signalled(self, peer_id: str, text: str) -> None: ...

    async def aclose(self) -> None:
        if self.track is not None and self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
            self.track.stop()


class OneBundle(UnpackedBundles):
    """Every bundle is there already."""

    def __init__(self) -> None: ...

    async def folder(self, checksum: str) -> Path:
        return Path("bundle")


def new_supply(sandbox: ScriptedSandbox, **options: Any) -> AgentSupply:
    """A supply of agents in virtual time."""
    defaults = {"clock": LoopClock(), "limits": SandboxLimits(), "bundles": OneBundle()}
    return AgentSupply(sandbox=sandbox, **{**defaults, **options})


class HostedCall:
    """`async with HostedCall(...) as call:` is a session whose client is connected and whose agent is loaded.

    `seconds_per_character` is how slowly the agent speaks; `deployed` are changes to the `DeployedAgent`.
    """

    def __init__(
        self,
        mode: Mode = Mode.VOICE,
        *,
        hooks: Sequence[str] = (),
        settings: SessionSettings | None = None,
        heard: Sequence[str] = (),
        unknown_words: Sequence[str] = (),
        seconds_per_character: float = 0.1,
        session_id: str = "s",
        sandbox: ScriptedSandbox | None = None,
        agents: AgentSupply | None = None,
        **deployed: Any,
    ) -> None:
        self.sandbox = sandbox or ScriptedSandbox(hooks)
        self.queue = InMemoryErrorQueue()
        self.agents = agents or new_supply(self.sandbox)
        self.session_id = session_id
        self._owns_agents = agents is None
        self.recognizer = ScriptedRecognizer(heard, unknown=unknown_words)
        speech = ScriptedSpeech(
            synthesizer=ScriptedSynthesizer(seconds_per_character=seconds_per_character),
            recognizer=self.recognizer,
        )
        self.crash_speech = CrashSpeech(speech.synthesizer)
        self.host = SessionHost(
            AssignSession(
                session_id=session_id,
                room_id="room",
                agent=DeployedAgent(
                    project_id="p",
                    build_id="b",
                    bundle_checksum="c",
                    mode=mode,
                    settings=settings or SessionSettings(),
                    **deployed,
                ),
            ),
            RunnerParts(
                settings=RunnerSettings(runner_id="r"),
                agents=self.agents,
                speech=speech,
                queue=self.queue,
                bundles=OneBundle(),
                crash_speech=self.crash_speech,
                command_words=CommandWords(self.recognizer),
                clock=LoopClock(),
                counts=RunnerCounts(),
                send=lambda message: None,
                connect=self._connect,
            ),
        )

    def _connect(self, **parts: Any) -> Any:
        self.client = MemoryConnection(**parts)
        return self.client

    async def __aenter__(self) -> HostedCall:
        self.host.begin()
        await asyncio.sleep(0.1)
        if self.sandbox.loads:
            await self.connect()
        return self

    async def connect(self) -> None:
        """The client is there, and says who it is."""
        self.client.events.opened()
        self.send({"type": "session_hello", "customer_context": {"user": self.session_id}})
        await asyncio.sleep(0.1)

    async def __aexit__(self, *_: object) -> None:
        self.send({"type": "session_close"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(120):
                await self.host.over.wait()
        assert self.host.over.is_set(), "the session did not end"
        if self._owns_agents:
            await self.agents.aclose()
        await self.crash_speech.aclose()

    # -- the agent

    @property
    def child(self) -> ScriptedChild:
        """The newest child."""
        return self.sandbox.children[-1]

    # -- the client

    def send(self, message: dict[str, Any]) -> None:
        self.client.events.control(msgspec.json.encode(message).decode())

    async def talk(self, seconds: float, *, pause: float = 0.6) -> None:
        """The user speaks for so long, and is silent for `pause` seconds."""
        pcm = tone(FRAME_SECONDS, level=9000) * round(seconds / FRAME_SECONDS)
        pcm += bytes(2 * int(16_000 * pause))
        for start in range(0, len(pcm), 640):
            self.client.events.audio(pcm[start : start + 640])
            await asyncio.sleep(0.02)

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The messages of this `type` that the client was sent."""
        return [message for _, message in self.client.sent if message.get("type") == kind]

    def speech_events(self) -> list[str]:
        return [message["event"] for message in self.told("speech_event")]

    def errors(self) -> list[tuple[str, bool]]:
        return [(error["code"], error["recoverable"]) for error in self.told("session_error")]

    async def moment(self, kind: str) -> float:
        """When the first message of this `type` was sent; waits for it."""
        async with asyncio.timeout(600):
            while True:
                for moment, message in self.client.sent:
                    if message.get("type") == kind:
                        return moment
                await asyncio.sleep(0.01)

    async def stored(self) -> tuple[list[tuple[str, bool]], str | None]:
        """The rows that were queued, and the reason of the end where it was."""
        rows: list[tuple[str, bool]] = []
        reason = None
        for delivery in await self.queue.receive(limit=100, wait_seconds=0.1):
            match delivery.item:
                case ErrorItem(record=record):
                    rows.append((record.code.value, record.recoverable))
                case SessionEndedItem(end_reason=end_reason):
                    reason = end_reason
        return rows, reason
