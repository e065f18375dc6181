"""The agent's voice in one session: what is to be said, one utterance at a time.

It tells the client what is said (`agent_speak`) before it is heard, and the session when speaking starts and
ends. A synthesizer that fails costs that utterance and gives an `error` speech event, nothing more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from voicethere.adapters.rtc.opus import encode_speech
from voicethere.adapters.rtc.outbound import Playback, SpeechTrack
from voicethere.core.ports import SpeechProviderError, Synthesizer
from voicethere.wire.control_channel import SpeechEventType

MAX_QUEUED_UTTERANCES = 256
DRAIN_SECONDS = 1.0


class _Utterance(msgspec.Struct, frozen=True):
    text: str
    speech_id: int | None


class SpeakerEvents(msgspec.Struct, frozen=True, kw_only=True):
    """What a speaker calls, on the event loop.

    `announce(text)` before it is heard; `speech_event(type, text, error)`; `said(speech_id, interrupted)`.
    """

    announce: Callable[[str], None]
    speech_event: Callable[[SpeechEventType, str | None, str | None], None]
    said: Callable[[int, bool], None]


class Speaker:
    """`track` gives the outbound track of the connection at hand, or None while there is none."""

    def __init__(
        self, *, synthesizer: Synthesizer, track: Callable[[], SpeechTrack | None], events: SpeakerEvents
    ) -> None:
        self._synthesizer = synthesizer
        self._track = track
        self._events = events
        self._waiting: deque[_Utterance] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._playing: Playback | None = None
        self._closed = False

    def say(self, text: str, speech_id: int | None = None) -> bool:
        """Queue an utterance; False where too much is waiting already."""
        if self._closed or len(self._waiting) >= MAX_QUEUED_UTTERANCES:
            self._done(speech_id, interrupted=True)
            return False
        self._waiting.append(_Utterance(text, speech_id))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="speaker")
        return True

    async def drained(self) -> None:
        """Return once nothing is waiting or playing."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    def stop(self) -> None:
        """Interrupt what is playing and forget what is waiting."""
        while self._waiting:
            self._done(self._waiting.popleft().speech_id, interrupted=True)
        if self._playing is not None:
            self._playing.interrupt()

    async def play_now(self, text: str, packets: Sequence[bytes]) -> None:
        """Say `text`, whose packets are ready, in place of everything else.

        Raises:
            SpeechProviderError: there is no track to play it on, or it was cut off.
        """
        self._closed = True
        self.stop()
        track = self._track()
        if track is None:
            raise SpeechProviderError("there is no audio connection to play the crash message on")
        self._events.announce(text)
        if not await track.play(packets).finished():
            raise SpeechProviderError("the crash message was cut off")
        # What is played has left us; what is heard still waits in the client's jitter buffer.
        await track.drained(DRAIN_SECONDS)

    async def aclose(self) -> None:
        """Stop, and wait until nothing is left running."""
        self._closed = True
        self.stop()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None

    async def _work(self) -> None:
        try:
            while self._waiting:
                utterance = self._waiting.popleft()
                interrupted = True
                try:
                    interrupted = not await self._speak(utterance.text)
                except SpeechProviderError as error:
                    self._events.speech_event(SpeechEventType.ERROR, None, str(error))
                finally:
                    self._done(utterance.speech_id, interrupted=interrupted)
        finally:
            self._worker = None

    async def _speak(self, text: str) -> bool:
        self._events.announce(text)
        track = self._track()
        if track is None:
            return False
        packets = encode_speech(self._synthesizer.synthesize(text), self._synthesizer.sample_rate)
        self._playing = track.play(packets)
        self._events.speech_event(SpeechEventType.AGENT_SPEAKING_START, text, None)
        try:
            return await self._playing.finished()
        finally:
            self._playing = None
            self._events.speech_event(SpeechEventType.AGENT_SPEAKING_END, text, None)

    def _done(self, speech_id: int | None, *, interrupted: bool) -> None:
        if speech_id is not None:
            self._events.said(speech_id, interrupted)
