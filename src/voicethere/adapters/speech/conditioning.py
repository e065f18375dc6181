"""Making an utterance's audio what an acoustic model expects: a usual level, and never perfect silence.

Models are trained on recordings of rooms. The exact zeros that muted microphones, files and codecs deliver
ruin the normalisation that recognition begins with: half of all commands are missed without this.
"""

from __future__ import annotations

import random
from array import array
from itertools import cycle

_PEAK = 8000
_MAX_GAIN = 16.0  # a whisper is raised, the hiss of an empty line is not
_NOISE_LEVEL = 40.0  # standard deviation: 46 dB below the peak, as in a quiet room
_NOISE_SAMPLES = 16_000


class Conditioner:
    """Conditions utterances, each by itself and always in the same way."""

    def __init__(self) -> None:
        source = random.Random(16_000)  # noqa: S311 - noise, not a secret
        self._noise = array("h", (round(source.gauss(0, _NOISE_LEVEL)) for _ in range(_NOISE_SAMPLES)))

    def condition(self, pcm: bytes) -> bytes:
        """`pcm` (16 bit) brought to a common peak, with the noise of a quiet room in it."""
        samples = array("h", pcm)
        if not samples:
            return b""
        peak = max(max(samples), -min(samples))
        gain = min(_PEAK / peak, _MAX_GAIN) if peak else 1.0
        # The peak and the noise together stay far from the limits of 16 bits.
        return array(
            "h", (int(sample * gain) + noise for sample, noise in zip(samples, cycle(self._noise)))
        ).tobytes()
