"""What a scenario of the demo came to."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from voicethere.chat import ChatErrorRecord
from voicethere.client import SessionErrorEnvelope


class CrashSpeechHeard(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived after the error. `rms` (0 to 1) is of all of it, `seconds` counts what was sound."""

    text: str
    rms: float
    seconds: float


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from the fault until …"""

    fault_to_client: float
    fault_to_audio: float | UnsetType = UNSET
    fault_to_stored: float


class ScenarioResult(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario, as `voicethere demo --json` prints it.

    `client_events` are the envelopes that the client got; `records` is a chat client's history of errors.
    """

    name: str
    mode: str
    session_id: str
    project_id: str
    ok: bool = True
    spoken: str | UnsetType = UNSET
    heard: str | UnsetType = UNSET
    answer: str | UnsetType = UNSET
    client_events: list[SessionErrorEnvelope] = []
    crash_speech: CrashSpeechHeard | UnsetType = UNSET
    records: list[ChatErrorRecord] | UnsetType = UNSET
    stored: list[dict[str, Any]] = []
    timings_ms: Timings | dict[str, float] = {}
