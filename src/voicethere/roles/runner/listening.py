"""The user's voice in one session: audio → utterances, barge-in, recognition → speech events.

It hears 16-kHz PCM and says what it made of it. The events of one utterance, in order (those in brackets
need not come):

    vad_triggered · user_speaking_start · [barge_in] · [user_stt_start · [user_speech_partial …]]
    user_speaking_end · [user_stt_start] · user_stt_end · user_speech_final, user_stt_not_found or error

`stt_stream_start` comes before the first audio of a connection, `stt_stream_end` when no more of it will.
A session's end gives up what is not recognized by then.
A recognizer that fails costs that utterance, nothing more. Without a recognizer there are the events of the
voice itself and `barge_in`: an agent that does not listen can still be interrupted.

The agent's echo is not cancelled here: that is the client's part (browsers do it).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from voicethere.adapters.speech.endpointing import Endpointer, SpeechEnded, SpeechStarted
from voicethere.core.ports import Recognizer, SpeechProviderError, VoiceActivity
from voicethere.wire.control_channel import SpeechEventType

MAX_WAITING_UTTERANCES = 8
BARGE_IN_MS = 250
"""So much speech over the agent's own interrupts it: a click or a cough does not."""
PARTIAL_MS = 600
"""So much more speech is a reason to look at the utterance again …"""
PARTIAL_GROWTH = 1.25
"""… and at least so many times as much as before: a long utterance costs no more than a few looks."""
_PIECE_BYTES = 640  # 20 ms: how audio is cut into messages must not matter

SpeechEventSink = Callable[[SpeechEventType, str | None, str | None], None]


class _Utterance:
    """One stretch of speech; `guess` is the last partial that was told."""

    __slots__ = ("ended", "guess", "recognition_begun")

    def __init__(self) -> None:
        self.ended = False
        self.recognition_begun = False
        self.guess = ""


class Listener:
    """`recognizer`: None where nothing is to be recognized; `hints` are the phrases it may expect.

    All are called on the event loop: `speech_event(type, text, error)`; `agent_speaks()` says whether there
    is speech of the agent's that may be interrupted, and `interrupt()` does so, after `barge_in`.
    """

    def __init__(
        self,
        *,
        voice_activity: VoiceActivity,
        recognizer: Recognizer | None,
        hints: Callable[[], Sequence[str]],
        speech_event: SpeechEventSink,
        agent_speaks: Callable[[], bool],
        interrupt: Callable[[], None],
    ) -> None:
        self._endpointer = Endpointer(voice_activity)
        self._recognizer = recognizer
        self._hints = hints
        self._speech_event = speech_event
        self._agent_speaks = agent_speaks
        self._interrupt = interrupt
        self._streaming = False
        self._ended = False
        self._utterance = _Utterance()
        self._speech_ms = 0
        self._over_agent_ms = 0
        self._next_partial_ms = PARTIAL_MS
        self._recognizing = False
        self._work: asyncio.Queue[tuple[_Utterance, bytes, bool]] = asyncio.Queue(MAX_WAITING_UTTERANCES)
        self._worker: asyncio.Task[None] | None = None
        if recognizer is not None:
            self._worker = asyncio.create_task(self._recognize_all(recognizer), name="listener")

    def hear(self, pcm: bytes) -> None:
        """Take the next piece of 16-kHz PCM, of any length."""
        if not self._streaming:
            self._streaming = True
            self._stream_event(SpeechEventType.STT_STREAM_START)
        for start in range(0, len(pcm), _PIECE_BYTES):
            for change in self._endpointer.feed(pcm[start : start + _PIECE_BYTES]):
                self._changed(change)
            if self._endpointer.speaking:
                self._goes_on()

    def audio_over(self) -> None:
        """No more audio comes for now: the utterance under way ends here. `hear` begins anew."""
        if not self._streaming:
            return
        self._streaming = False
        for change in self._endpointer.flush():
            self._changed(change)
        self._stream_event(SpeechEventType.STT_STREAM_END)

    def end(self) -> None:
        """Nobody listens any more: as `audio_over`, but what is not recognized yet is given up."""
        if self._worker is not None:
            self._worker.cancel()
        self._ended = True
        self.audio_over()

    async def aclose(self) -> None:
        """Stop listening; an utterance that is being recognized is given up."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    # ------------------------------------------------------------------ the voice

    def _changed(self, change: SpeechStarted | SpeechEnded) -> None:
        if isinstance(change, SpeechStarted):
            self._utterance = _Utterance()
            self._speech_ms = self._over_agent_ms = 0
            self._next_partial_ms = PARTIAL_MS
            self._event(SpeechEventType.VAD_TRIGGERED)
            self._event(SpeechEventType.USER_SPEAKING_START)
        else:
            self._utterance.ended = True
            self._event(SpeechEventType.USER_SPEAKING_END)
            self._recognize(self._utterance, change.pcm, whole=True)

    def _goes_on(self) -> None:
        """Some more of an utterance was heard."""
        speech_ms = self._endpointer.speech_ms
        more = speech_ms - self._speech_ms
        self._speech_ms = speech_ms
        self._over_agent_ms = self._over_agent_ms + more if self._agent_speaks() else 0
        if self._over_agent_ms >= BARGE_IN_MS:
            self._over_agent_ms = 0
            self._event(SpeechEventType.BARGE_IN)
            self._interrupt()
        if speech_ms >= self._next_partial_ms and not self._recognizing and self._work.empty():
            self._next_partial_ms = max(speech_ms + PARTIAL_MS, int(speech_ms * PARTIAL_GROWTH))
            self._recognize(self._utterance, self._endpointer.so_far(), whole=False)

    def _event(self, event: SpeechEventType, text: str | None = None) -> None:
        self._speech_event(event, text, None)

    def _stream_event(self, event: SpeechEventType) -> None:
        if self._recognizer is not None:
            self._event(event)

    # ------------------------------------------------------------------ recognition

    def _recognize(self, utterance: _Utterance, pcm: bytes, *, whole: bool) -> None:
        if self._recognizer is None or self._ended:
            return
        try:
            self._work.put_nowait((utterance, pcm, whole))
        except asyncio.QueueFull:
            self._over(utterance, SpeechEventType.ERROR, "recognition is behind: an utterance was dropped")

    async def _recognize_all(self, recognizer: Recognizer) -> None:
        while True:
            utterance, pcm, whole = await self._work.get()
            self._recognizing = True
            try:
                if whole:
                    await self._final(recognizer, utterance, pcm)
                elif not utterance.ended:
                    await self._partial(recognizer, utterance, pcm)
            finally:
                self._recognizing = False

    async def _partial(self, recognizer: Recognizer, utterance: _Utterance, pcm: bytes) -> None:
        self._begin(utterance)
        try:
            text = (await recognizer.recognize(pcm, hints=self._hints())).text
        except SpeechProviderError:
            return  # only a guess is lost; should it go on, the whole utterance's recognition says so
        if text and text != utterance.guess and not utterance.ended:
            utterance.guess = text
            self._event(SpeechEventType.USER_SPEECH_PARTIAL, text)

    async def _final(self, recognizer: Recognizer, utterance: _Utterance, pcm: bytes) -> None:
        self._begin(utterance)
        try:
            text = (await recognizer.recognize(pcm, hints=self._hints())).text
        except SpeechProviderError as error:
            self._over(utterance, SpeechEventType.ERROR, str(error))
        else:
            if text:
                self._over(utterance, SpeechEventType.USER_SPEECH_FINAL, text)
            else:
                self._over(utterance, SpeechEventType.USER_STT_NOT_FOUND)

    def _begin(self, utterance: _Utterance) -> None:
        if not utterance.recognition_begun:
            utterance.recognition_begun = True
            self._event(SpeechEventType.USER_STT_START)

    def _over(self, utterance: _Utterance, outcome: SpeechEventType, words: str | None = None) -> None:
        if utterance.recognition_begun:
            self._event(SpeechEventType.USER_STT_END)
        if outcome is SpeechEventType.ERROR:
            self._speech_event(outcome, None, words)
        else:
            self._event(outcome, words)
