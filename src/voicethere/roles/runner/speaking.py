"""The agent's voice in one session: what is to be said, one utterance at a time; and the crash message.

It tells the client what is said (`agent_speak`) before it is heard, and the session when speaking starts and
ends. A synthesizer that fails costs that utterance and gives an `error` speech event, nothing more.

The agent's speech can be interrupted, the crash message cannot: what the agent says meanwhile waits for its
end.
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

Said = Callable[[bool], None]
"""Called once with whether it was interrupted (or never said)."""


class _Utterance(msgspec.Struct, frozen=True):
    text: str
    said: Said | None

    def over(self, *, interrupted: bool) -> None:
        if self.said is not None:
            self.said(interrupted)


class SpeakerEvents(msgspec.Struct, frozen=True, kw_only=True):
    """What a speaker calls, on the event loop.

    `announce(text)` before it is heard; `speech_event(type, text, error)`.
    """

    announce: Callable[[str], None]
    speech_event: Callable[[SpeechEventType, str | None, str | None], None]


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
        self._crash_message: Playback | None = None
        self._closed = False

    @property
    def interruptible(self) -> bool:
        """Whether the agent speaks, or is about to: not while the crash message is played."""
        return self._worker is not None and self._crash_message is None

    def say(self, text: str, said: Said | None = None) -> bool:
        """Queue an utterance; False where too much is waiting already."""
        utterance = _Utterance(text, said)
        if self._closed or len(self._waiting) >= MAX_QUEUED_UTTERANCES:
            utterance.over(interrupted=True)
            return False
        self._waiting.append(utterance)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="speaker")
        return True

    async def drained(self) -> None:
        """Return once nothing is waiting or playing."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    def stop(self) -> None:
        """Interrupt what the agent says and forget what waits; the crash message goes on."""
        while self._waiting:
            self._waiting.popleft().over(interrupted=True)
        if self._playing is not None:
            self._playing.interrupt()

    async def play_now(self, text: str, packets: Sequence[bytes], *, last: bool = True) -> None:
        """Say `text`, whose packets are ready, in place of everything else.

        With `last` nothing is said after it, and it returns when it has left for good. Otherwise the agent
        may speak again; what it says waits until this was said.

        Raises:
            SpeechProviderError: there is no track to play it on, or it was cut off.
        """
        self._closed = self._closed or last
        self.stop()
        if self._crash_message is not None:
            self._crash_message.interrupt()
        track = self._track()
        if track is None:
            raise SpeechProviderError("there is no audio connection to play the crash message on")
        self._events.announce(text)
        playback = self._crash_message = track.play(packets)
        try:
            if not await playback.finished():
                raise SpeechProviderError("the crash message was cut off")
        finally:
            if self._crash_message is playback:
                self._crash_message = None
        if last:
            # What is played has left us; what is heard still waits in the client's jitter buffer.
            await track.drained(DRAIN_SECONDS)

    async def aclose(self) -> None:
        """Stop, and wait until nothing is left running."""
        self._closed = True
        self.stop()
        if self._crash_message is not None:
            self._crash_message.interrupt()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None

    async def _work(self) -> None:
        try:
            while self._waiting:
                while self._crash_message is not None:
                    await self._crash_message.finished()
                    await asyncio.sleep(0)
                await self._say_next()
        finally:
            self._worker = None

    async def _say_next(self) -> None:
        if not self._waiting:
            return
        utterance = self._waiting.popleft()
        interrupted = True
        try:
            interrupted = not await self._speak(utterance.text)
        except SpeechProviderError as error:
            self._events.speech_event(SpeechEventType.ERROR, None, str(error))
        finally:
            utterance.over(interrupted=interrupted)

    async def _speak(self, text: str) -> bool:
        self._events.announce(text)
        track = self._track()
        if track is None:
            return False
        packets = encode_speech(self._synthesizer.synthesize(text), self._synthesizer.sample_rate)
        playing = self._playing = track.play(packets)
        try:
            await playing.started.wait()
            if playing.done:
                return await playing.finished()  # interrupted, or failed, before it was heard
            self._events.speech_event(SpeechEventType.AGENT_SPEAKING_START, text, None)
            try:
                return await playing.finished()
            finally:
                self._events.speech_event(SpeechEventType.AGENT_SPEAKING_END, text, None)
        finally:
            self._playing = None
