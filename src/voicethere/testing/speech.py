"""Speech without speech: scripted fakes of the speech ports, which pass the ports' contract tests.

They need no extra and no process. What is said is a tone whose length follows the text; what is heard is
what the script says.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Sequence

from voicethere.core.ports import SpeechProviderError, Transcript, UnknownWords

_FRAME_SAMPLES = 512
_SPEECH_LEVEL = 500


def tone(seconds: float, *, sample_rate: int = 16_000, hertz: float = 440.0, level: int = 8000) -> bytes:
    """PCM of a sine of so many seconds; `level` (0 to 32767) is its peak."""
    step = 2 * math.pi * hertz / sample_rate
    count = int(seconds * sample_rate)
    return array("h", (round(level * math.sin(step * n)) for n in range(count))).tobytes()


class ScriptedSynthesizer:
    """A `Synthesizer` that says a tone of `seconds_per_character` for each character of the text.

    `spoken` lists the texts asked for; those with `fails_on` in them fail, all while `failure` is set.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        seconds_per_character: float = 0.02,
        chunk_seconds: float = 0.1,
        fails_on: str | None = None,
    ) -> None:
        self._sample_rate = sample_rate
        self._seconds_per_character = seconds_per_character
        self._chunk_bytes = int(chunk_seconds * sample_rate) * 2
        self._fails_on = fails_on
        self._closed = False
        self.failure: str | None = None
        self.spoken: list[str] = []

    @property
    def sample_rate(self) -> int:
        return self._sample_rate

    async def synthesize(self, text: str) -> AsyncIterator[bytes]:
        """Chunks of the tone; a text without a letter or a digit yields none."""
        if self._closed:
            raise SpeechProviderError("the scripted synthesizer is closed")
        self.spoken.append(text)
        if self.failure is not None:
            raise SpeechProviderError(f"the scripted synthesizer failed: {self.failure}")
        if self._fails_on is not None and self._fails_on in text:
            raise SpeechProviderError(
                f"the scripted synthesizer failed: it was told to on {self._fails_on!r}"
            )
        if not any(char.isalnum() for char in text):
            return
        pcm = tone(len(text) * self._seconds_per_character, sample_rate=self._sample_rate)
        for start in range(0, len(pcm), self._chunk_bytes):
            yield pcm[start : start + self._chunk_bytes]

    async def aclose(self) -> None:
        self._closed = True


class ScriptedRecognizer:
    """A `Recognizer` that hears its script, line by line; then nothing.

    A line that is an exception is raised. `heard` lists `(pcm, hints)` of each call. With `only_hints` a line
    that is not among the hints is not understood, as with a recognizer of commands. It is a `HintCheck` that
    knows all words but `unknown`; `looked_up` lists the hints that it was asked about.
    """

    def __init__(
        self,
        script: Iterable[str | SpeechProviderError] = (),
        *,
        only_hints: bool = False,
        unknown: Collection[str] = (),
    ) -> None:
        self._script = deque(script)
        self._only_hints = only_hints
        self._unknown = frozenset(unknown)
        self._closed = False
        self.looked_up: list[tuple[str, ...]] = []
        self.heard: list[tuple[bytes, tuple[str, ...]]] = []

    def will_hear(self, line: str | SpeechProviderError) -> None:
        """Append a line to the script."""
        self._script.append(line)

    async def recognize(self, pcm: bytes, *, hints: Sequence[str]) -> Transcript:
        """The script's next line; silence and empty audio use up none."""
        if self._closed:
            raise SpeechProviderError("the scripted recognizer is closed")
        if len(pcm) % 2:
            raise SpeechProviderError(f"{len(pcm)} bytes are no 16-bit audio: the number must be even")
        self.heard.append((pcm, tuple(hints)))
        if not self._script or not any(pcm):
            return Transcript(text="")
        line = self._script.popleft()
        if isinstance(line, SpeechProviderError):
            raise line
        if self._only_hints and line not in hints:
            return Transcript(text="")
        return Transcript(text=line, confidence=1.0)

    async def unknown_words(self, hints: Sequence[str]) -> Sequence[UnknownWords]:
        """The hints with a word of `unknown` in them, none of which is recognizable."""
        if self._closed:
            raise SpeechProviderError("the scripted recognizer is closed")
        self.looked_up.append(tuple(hints))
        found = [(hint, tuple(w for w in hint.split() if w in self._unknown)) for hint in hints]
        return [
            UnknownWords(hint=hint, words=words, recognizable=False, reason=f"unknown: {', '.join(words)}")
            for hint, words in found
            if words
        ]

    async def aclose(self) -> None:
        self._closed = True


class LevelVoiceActivity:
    """A `VoiceActivity` that takes for speech whatever is louder than `level` (0 to 32767, mean)."""

    def __init__(self, *, level: int = _SPEECH_LEVEL) -> None:
        self._level = level

    @property
    def frame_samples(self) -> int:
        return _FRAME_SAMPLES

    def is_speech(self, frame: bytes) -> bool:
        if len(frame) != _FRAME_SAMPLES * 2:
            raise ValueError(f"a frame has {_FRAME_SAMPLES * 2} bytes, not {len(frame)}")
        return sum(map(abs, array("h", frame))) > self._level * _FRAME_SAMPLES


class ScriptedSpeech:
    """A `SpeechSuite` of the fakes."""

    def __init__(
        self,
        *,
        synthesizer: ScriptedSynthesizer | None = None,
        recognizer: ScriptedRecognizer | None = None,
    ) -> None:
        self._synthesizer = synthesizer or ScriptedSynthesizer()
        self._recognizer = recognizer or ScriptedRecognizer()

    @property
    def synthesizer(self) -> ScriptedSynthesizer:
        return self._synthesizer

    @property
    def recognizer(self) -> ScriptedRecognizer:
        return self._recognizer

    def new_voice_activity(self) -> LevelVoiceActivity:
        return LevelVoiceActivity()

    async def open(self) -> None:
        """There is nothing to start."""

    async def aclose(self) -> None:
        await self._synthesizer.aclose()
        await self._recognizer.aclose()
