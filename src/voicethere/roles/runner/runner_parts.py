"""What all sessions of a runner share."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from voicethere.core.ports import Clock, ErrorQueuePort, SpeechSuite
from voicethere.roles.runner.agent_supply import AgentSupply
from voicethere.roles.runner.command_words import CommandWords
from voicethere.roles.runner.connections import ClientConnections
from voicethere.roles.runner.crash_speech import CrashSpeech
from voicethere.roles.runner.gauges import RunnerCounts
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.wire.relay import ToService


class RunnerParts(msgspec.Struct, frozen=True, kw_only=True):
    """`send` puts a message on the relay; `connect` is for tests."""

    settings: RunnerSettings
    agents: AgentSupply
    speech: SpeechSuite
    queue: ErrorQueuePort
    bundles: UnpackedBundles
    crash_speech: CrashSpeech
    command_words: CommandWords
    clock: Clock
    counts: RunnerCounts
    send: Callable[[ToService], None]
    connect: Callable[..., ClientConnections] = ClientConnections
