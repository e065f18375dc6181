"""The user's voice in one session: voice activity → utterances → recognition → speech events.

It hears 16-kHz PCM and says what it made of it. A recognizer that fails costs that utterance and gives an
`error` speech event, nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from voicethere.adapters.speech.endpointing import Endpointer, SpeechEnded, SpeechStarted
from voicethere.core.ports import Recognizer, SpeechProviderError, VoiceActivity
from voicethere.wire.control_channel import SpeechEventType

MAX_WAITING_UTTERANCES = 8

SpeechEventSink = Callable[[SpeechEventType, str | None, str | None], None]


class Listener:
    """`speech_event(type, text, error)` is called on the event loop, in order."""

    def __init__(
        self,
        *,
        voice_activity: VoiceActivity,
        recognizer: Recognizer,
        hints: Callable[[], Sequence[str]],
        speech_event: SpeechEventSink,
    ) -> None:
        self._endpointer = Endpointer(voice_activity)
        self._recognizer = recognizer
        self._hints = hints
        self._speech_event = speech_event
        self._utterances: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING_UTTERANCES)
        self._worker = asyncio.create_task(self._recognize_all(), name="listener")

    def hear(self, pcm: bytes) -> None:
        """Take the next piece of 16-kHz PCM, of any length."""
        for change in self._endpointer.feed(pcm):
            if isinstance(change, SpeechStarted):
                self._speech_event(SpeechEventType.VAD_TRIGGERED, None, None)
                self._speech_event(SpeechEventType.USER_SPEAKING_START, None, None)
            elif isinstance(change, SpeechEnded):
                self._speech_event(SpeechEventType.USER_SPEAKING_END, None, None)
                try:
                    self._utterances.put_nowait(change.pcm)
                except asyncio.QueueFull:
                    self._speech_event(
                        SpeechEventType.ERROR, None, "recognition is behind: an utterance was dropped"
                    )

    async def aclose(self) -> None:
        """Stop listening; an utterance that is being recognized is given up."""
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)

    async def _recognize_all(self) -> None:
        while True:
            pcm = await self._utterances.get()
            self._speech_event(SpeechEventType.USER_STT_START, None, None)
            try:
                transcript = await self._recognizer.recognize(pcm, hints=self._hints())
            except SpeechProviderError as error:
                self._speech_event(SpeechEventType.ERROR, None, str(error))
                continue
            self._speech_event(SpeechEventType.USER_STT_END, None, None)
            if transcript.text:
                self._speech_event(SpeechEventType.USER_SPEECH_FINAL, transcript.text, None)
            else:
                self._speech_event(SpeechEventType.USER_STT_NOT_FOUND, None, None)
