"""The offline speech defaults in one piece: espeak-ng, pocketsphinx and Silero VAD."""

from __future__ import annotations

import asyncio

from voicethere.adapters.speech.espeak import EspeakSynthesizer
from voicethere.adapters.speech.pocketsphinx_recognizer import PocketsphinxRecognizer
from voicethere.adapters.speech.providers import speech_providers
from voicethere.adapters.speech.silero_vad import SileroVoiceActivity
from voicethere.core.ports import SpeechProviderError


class OfflineSpeech:
    """A `SpeechSuite` that needs no network and no download. Processes start when first needed, or by `open`.

    Args:
        voice, words_per_minute: see `EspeakSynthesizer`.
        recognizer_workers: how many utterances are recognized at once.
    """

    def __init__(
        self, *, voice: str = "en-us", words_per_minute: int = 175, recognizer_workers: int = 1
    ) -> None:
        self._synthesizer = EspeakSynthesizer(voice=voice, words_per_minute=words_per_minute)
        self._recognizer = PocketsphinxRecognizer(workers=recognizer_workers)

    @property
    def synthesizer(self) -> EspeakSynthesizer:
        return self._synthesizer

    @property
    def recognizer(self) -> PocketsphinxRecognizer:
        return self._recognizer

    def new_voice_activity(self) -> SileroVoiceActivity:
        """One per session.

        Raises:
            SpeechProviderError: it is not installed.
        """
        return SileroVoiceActivity()

    async def open(self) -> None:
        """Start the processes now and make sure that everything works.

        Raises:
            SpeechProviderError: something is missing or does not work; the words name all that is missing.
        """
        missing = [f"{p.name} ({p.why_not})" for p in speech_providers() if not p.available]
        if missing:
            raise SpeechProviderError(f"offline speech is not complete: {'; '.join(missing)}")
        self.new_voice_activity()
        results = await asyncio.gather(
            self._synthesizer.open(), self._recognizer.open(), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def aclose(self) -> None:
        """End the processes; what is under way fails."""
        await asyncio.gather(self._synthesizer.aclose(), self._recognizer.aclose())
