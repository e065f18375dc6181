"""The offline speech providers: which are installed, and whether what one says the other understands."""

from __future__ import annotations

import time

from voicethere.cli.doctor.findings import Finding, ok, warning
from voicethere.core.ports import SpeechProviderError, VoiceActivity

_PHRASE = "good morning"
_OTHERS = ("open the door", "thank you very much")
_HEARD_RATE = 16_000
_INSTALL = (
    "pip install 'voicethere[speech]' (espeak-ng in it is GPL-3.0-or-later). Data sessions need none of it."
)


async def providers() -> Finding:
    """Which are there, and under which licence."""
    from voicethere.adapters.speech.providers import speech_providers

    found = speech_providers()
    words = "; ".join(
        f"{provider.kind.replace('_', ' ')}: {provider.name} ({provider.licence})"
        if provider.available
        else f"{provider.kind.replace('_', ' ')}: {provider.why_not}"
        for provider in found
    )
    if all(provider.available for provider in found):
        return ok(words)
    return warning(words, _INSTALL)


async def round_trip() -> Finding:
    """Say a phrase and recognize it, as a session would."""
    from voicethere.adapters.speech.suite import OfflineSpeech

    suite = OfflineSpeech()
    try:
        await suite.open()
        began = time.monotonic()
        spoken = b"".join([chunk async for chunk in suite.synthesizer.synthesize(_PHRASE)])
        pcm = _as_heard(spoken, suite.synthesizer.sample_rate)
        voiced = _is_voiced(suite.new_voice_activity(), pcm)
        transcript = await suite.recognizer.recognize(pcm, hints=[_PHRASE, *_OTHERS])
        seconds = time.monotonic() - began
    except SpeechProviderError as problem:
        return warning(str(problem), _INSTALL)
    finally:
        await suite.aclose()
    return judge_round_trip(transcript.text, voiced=voiced, seconds=seconds)


def judge_round_trip(text: str, *, voiced: bool, seconds: float) -> Finding:
    """`text` is what was understood, `voiced` whether voice activity was found in it."""
    todo = "Reinstall the extra `speech`; if that does not help, please report it."
    if text != _PHRASE:
        return warning(f"“{_PHRASE}” was said, and “{text}” understood", todo)
    if not voiced:
        return warning(f"“{_PHRASE}” was said, and taken for silence", todo)
    return ok(f"“{_PHRASE}” was said, heard and understood in {seconds:.2f} s")


def _as_heard(pcm: bytes, rate: int) -> bytes:
    """What a microphone would deliver of it: 16 kHz, with quiet around."""
    import av
    import numpy as np

    frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, np.int16)[None], "s16", "mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler("s16", "mono", _HEARD_RATE)
    parts = [part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))]
    quiet = np.zeros(_HEARD_RATE // 2, np.int16)
    return np.concatenate([quiet, *parts, quiet]).astype(np.int16).tobytes()


def _is_voiced(activity: VoiceActivity, pcm: bytes) -> bool:
    size = activity.frame_samples * 2
    whole = len(pcm) - len(pcm) % size
    frames = [activity.is_speech(pcm[start : start + size]) for start in range(0, whole, size)]
    return any(frames)
