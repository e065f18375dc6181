"""The agent's voice in one session: what is to be said, one utterance at a time; and the crash message.

It tells the client what is said (`agent_speak`) before it is heard, and the session when speaking starts and
ends. A synthesizer that fails costs that utterance and gives an `error` speech event, nothing more.

A text that is still being written is said sentence by sentence as it comes; each is an utterance. What is to
be said after it waits until it is over.

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
from voicethere.roles.runner.spoken_stream import Said, SpokenStream
from voicethere.wire.control_channel import SpeechEventType

MAX_QUEUED_UTTERANCES = 256
MAX_STREAMED_CHARS = 4 * 1024 * 1024
"""Of streams that wait to be said."""
DRAIN_SECONDS = 1.0


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
        self._waiting: deque[_Utterance | SpokenStream] = deque()
        self._stream: SpokenStream | None = None
        """The one that is being said."""
        self._worker: asyncio.Task[None] | None = None
        self._playing: Playback | None = None
        self._crash_message: Playback | None = None
        self._closed = False

    @property
    def interruptible(self) -> bool:
        """Whether the agent speaks, or is about to: not while the crash message is played.

        A stream speaks for as long as it is open, in its pauses too.
        """
        return self._worker is not None and self._crash_message is None

    def say(self, text: str, said: Said | None = None) -> bool:
        """Queue an utterance; False where too much is waiting already."""
        utterance = _Utterance(text, said)
        if not self._queue(utterance):
            utterance.over(interrupted=True)
            return False
        return True

    def stream(self, said: Said) -> SpokenStream:
        """Queue a text that is yet to be written; it is over at once where too much is waiting already."""
        stream = SpokenStream(said, self._has_room)
        if not self._queue(stream):
            stream.interrupt()
        return stream

    async def drained(self) -> None:
        """Return once nothing is waiting or playing, and no stream is open."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    def stop(self) -> None:
        """Interrupt what the agent says and forget what waits; the crash message goes on."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if isinstance(waiting, SpokenStream):
                waiting.interrupt()
            else:
                waiting.over(interrupted=True)
        if self._stream is not None:
            self._stream.interrupt()
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

    def _queue(self, what: _Utterance | SpokenStream) -> bool:
        if self._closed or len(self._waiting) >= MAX_QUEUED_UTTERANCES:
            return False
        self._waiting.append(what)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="speaker")
        return True

    def _has_room(self, chars: int) -> bool:
        streams = [stream for stream in (self._stream, *self._waiting) if isinstance(stream, SpokenStream)]
        return sum(stream.unsaid_chars for stream in streams) + chars <= MAX_STREAMED_CHARS

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._crash_message_said()
                if self._waiting:
                    await self._say_next(self._waiting.popleft())
        finally:
            self._worker = None

    async def _crash_message_said(self) -> None:
        while self._crash_message is not None:
            await self._crash_message.finished()
            await asyncio.sleep(0)

    async def _say_next(self, what: _Utterance | SpokenStream) -> None:
        if isinstance(what, SpokenStream):
            self._stream = what
            try:
                await self._say_stream(what)
            finally:
                self._stream = None
        else:
            interrupted = True
            try:
                interrupted = not await self._say_sentence(what.text)
            finally:
                what.over(interrupted=interrupted)

    async def _say_stream(self, stream: SpokenStream) -> None:
        interrupted = True
        try:
            failed = 0
            while (sentence := await stream.next_sentence()) is not None:
                await self._crash_message_said()
                if stream.over:
                    return
                outcome = await self._say_sentence(sentence.strip())
                if outcome is False:
                    return
                failed += outcome is None
                stream.sentence_said(sentence)
            interrupted = failed > 0
        finally:
            stream.finish(interrupted=interrupted)

    async def _say_sentence(self, text: str) -> bool | None:
        """Whether it was played to its end; None where it could not be synthesized."""
        try:
            return await self._speak(text)
        except SpeechProviderError as error:
            self._events.speech_event(SpeechEventType.ERROR, None, str(error))
            return None

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
