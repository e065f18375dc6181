"""From voice activity to utterances: where speech begins, where it ends, and which audio it is.

Pure: audio in, events out, no clock; time is counted in samples. The states:

    quiet    --(start_ms of speech in a row)-->                     speaking, SpeechStarted
    speaking --(end_silence_ms without speech)-->                   quiet, SpeechEnded
    speaking --(max_utterance_ms)-->                                quiet, SpeechEnded(cut=True)

What goes on past a cut begins a new utterance.
"""

from __future__ import annotations

from collections import deque

import msgspec

from voicethere.core.ports import VoiceActivity

SAMPLE_RATE = 16_000
_KEPT_SILENCE_MS = 200
"""Of the silence that ended an utterance so much is left in it: recognizers want some, not all of it."""


class SpeechStarted(msgspec.Struct, frozen=True):
    """The user began to speak."""


class SpeechEnded(msgspec.Struct, frozen=True):
    """The user stopped. `pcm` is the utterance with its pre-roll; `cut`: it was too long and goes on."""

    pcm: bytes
    cut: bool = False

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / SAMPLE_RATE


class Endpointer:
    """Finds utterances in one session's audio. Holds at most `max_utterance_ms` and the pre-roll.

    Args:
        voice_activity: decides frame by frame.
        start_ms: speech in a row before an utterance begins; more keeps coughs out, and adds to the latency
            of `SpeechStarted` only.
        end_silence_ms: how long a pause ends an utterance: the greatest part of the latency of an answer.
        pre_roll_ms: audio before the first speech that belongs to the utterance, for soft onsets.
        max_utterance_ms: an utterance is cut there.

    Raises:
        ValueError: a duration that makes no sense.
    """

    def __init__(
        self,
        voice_activity: VoiceActivity,
        *,
        start_ms: int = 64,
        end_silence_ms: int = 450,
        pre_roll_ms: int = 300,
        max_utterance_ms: int = 15_000,
    ) -> None:
        if min(start_ms, end_silence_ms) <= 0 or pre_roll_ms < 0:
            raise ValueError("start_ms and end_silence_ms must be positive, pre_roll_ms not negative")
        if max_utterance_ms <= start_ms + end_silence_ms + pre_roll_ms:
            raise ValueError("max_utterance_ms must exceed start_ms, end_silence_ms and pre_roll_ms together")
        self._voice_activity = voice_activity
        self._frame_bytes = voice_activity.frame_samples * 2
        self._start_frames = self._frames(start_ms)
        self._end_frames = self._frames(end_silence_ms)
        self._max_frames = self._frames(max_utterance_ms)
        self._dropped_tail = max(0, self._end_frames - self._frames(_KEPT_SILENCE_MS))
        self._remainder = b""
        self._recent: deque[bytes] = deque(maxlen=self._frames(pre_roll_ms) + self._start_frames)
        self._utterance: list[bytes] = []
        self._run = 0
        self._speech_frames = 0
        self._speaking = False

    def _frames(self, milliseconds: int) -> int:
        """How many frames hold so long a time, rounded up."""
        return -(-milliseconds * SAMPLE_RATE // (1000 * self._voice_activity.frame_samples))

    @property
    def speaking(self) -> bool:
        """Whether an utterance is under way."""
        return self._speaking

    @property
    def speech_ms(self) -> int:
        """How much of the utterance under way is speech; its pauses and its pre-roll do not count."""
        return self._speech_frames * self._voice_activity.frame_samples * 1000 // SAMPLE_RATE

    def so_far(self) -> bytes:
        """The audio of the utterance under way, its pre-roll included."""
        return b"".join(self._utterance)

    def feed(self, pcm: bytes) -> list[SpeechStarted | SpeechEnded]:
        """What the next piece of 16-kHz PCM, of any size, brings about."""
        events: list[SpeechStarted | SpeechEnded] = []
        data = self._remainder + pcm if self._remainder else pcm
        whole = len(data) - len(data) % self._frame_bytes
        for start in range(0, whole, self._frame_bytes):
            event = self._frame(data[start : start + self._frame_bytes])
            if event is not None:
                events.append(event)
        self._remainder = data[whole:]
        return events

    def flush(self) -> list[SpeechStarted | SpeechEnded]:
        """The audio is over: ends the utterance that is under way, and forgets everything."""
        events: list[SpeechStarted | SpeechEnded] = [self._end(drop=0)] if self._speaking else []
        self._recent.clear()
        self._remainder = b""
        self._run = 0
        return events

    def _frame(self, frame: bytes) -> SpeechStarted | SpeechEnded | None:
        speech = self._voice_activity.is_speech(frame)
        if self._speaking:
            self._utterance.append(frame)
            self._speech_frames += speech
            self._run = 0 if speech else self._run + 1
            if self._run >= self._end_frames:
                return self._end(drop=self._dropped_tail)
            if len(self._utterance) >= self._max_frames:
                return self._end(drop=0, cut=True)
            return None
        self._recent.append(frame)
        self._run = self._run + 1 if speech else 0
        if self._run < self._start_frames:
            return None
        self._speaking = True
        self._utterance = list(self._recent)
        self._recent.clear()
        self._speech_frames = self._run
        self._run = 0
        return SpeechStarted()

    def _end(self, *, drop: int, cut: bool = False) -> SpeechEnded:
        frames = self._utterance[:-drop] if drop else self._utterance
        # A next utterance right after this one may need its end as pre-roll, but must not repeat its speech.
        self._recent.extend(self._utterance[len(frames) :])
        self._utterance = []
        self._speech_frames = 0
        self._speaking = False
        self._run = 0
        return SpeechEnded(b"".join(frames), cut)
