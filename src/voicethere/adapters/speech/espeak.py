"""Text to speech with espeak-ng, offline, from a wheel.

Knows how text becomes segments and segments become a stream of PCM. espeak-ng itself runs in a process of
its own: its state is global, and text that breaks a C library must not end the runner's sessions. A segment
is spoken at once (a thousand times faster than real time) and its process is free again while the segment
is played, so that a slow listener holds up nobody.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator

from voicethere.adapters.speech.spoken_text import MAX_TEXT_CHARS, clean_text, segments
from voicethere.adapters.speech.worker_pool import SpeechWorkerPool
from voicethere.adapters.speech.worker_protocol import SayReply, SayRequest
from voicethere.core.ports import SpeechProviderError

SAMPLE_RATE = 22_050
_CHUNK_BYTES = 4410  # 100 ms
_PAUSE = bytes(2 * SAMPLE_RATE * 18 // 100)  # between segments, where espeak-ng's own pause was trimmed


class EspeakSynthesizer:
    """A `Synthesizer` on espeak-ng. Speech at 22,050 Hz.

    Args:
        voice: an espeak-ng voice, such as `en-us`, `en-gb` or `en-us+f3`.
        words_per_minute: 80 to 450.
        timeout_seconds: for one segment of at most 240 characters.
        waiting: how many segments may wait for the process before more are refused.

    Raises:
        ValueError: a rate out of range.
    """

    def __init__(
        self,
        *,
        voice: str = "en-us",
        words_per_minute: int = 175,
        timeout_seconds: float = 10.0,
        waiting: int = 256,
    ) -> None:
        if not 80 <= words_per_minute <= 450:
            raise ValueError(f"words_per_minute is {words_per_minute}; espeak-ng speaks 80 to 450")
        self._voice = voice
        self._words_per_minute = words_per_minute
        self._pool = SpeechWorkerPool(
            "the speech synthesizer (espeak-ng)",
            "voicethere.adapters.speech.synthesizer_process",
            waiting=waiting,
            timeout_seconds=timeout_seconds,
        )

    @property
    def sample_rate(self) -> int:
        return SAMPLE_RATE

    @property
    def pids(self) -> tuple[int, ...]:
        """Its processes that are idle now."""
        return self._pool.pids

    async def open(self) -> None:
        """Start the process and try the voice, so that the first words come at once.

        Raises:
            SpeechProviderError: it cannot speak.
        """
        _require_installed()
        ready = await self._pool.open()
        if ready.sample_rate != SAMPLE_RATE:
            raise SpeechProviderError(
                f"{self._pool.name} speaks at {ready.sample_rate} Hz; {SAMPLE_RATE} Hz was expected"
            )
        await self._say("a")

    async def synthesize(self, text: str) -> AsyncIterator[bytes]:
        """PCM in chunks of at most 100 ms, without silence at either end. No words: no chunks.

        The next segment is made when the last one has been taken; closing the iterator makes no more.

        Raises:
            SpeechProviderError: more than `MAX_TEXT_CHARS` characters, or the provider failed.
        """
        if len(text) > MAX_TEXT_CHARS:
            raise SpeechProviderError(
                f"{len(text)} characters are too many to speak at once; at most {MAX_TEXT_CHARS} are allowed"
            )
        _require_installed()
        spoken = False
        for segment in segments(clean_text(text)):
            pcm = await self._say(segment)
            if pcm and spoken:
                pcm = _PAUSE + pcm
            for start in range(0, len(pcm), _CHUNK_BYTES):
                spoken = True
                yield pcm[start : start + _CHUNK_BYTES]

    async def _say(self, segment: str) -> bytes:
        reply = await self._pool.request(
            SayRequest(text=segment, voice=self._voice, words_per_minute=self._words_per_minute)
        )
        if not isinstance(reply, SayReply):
            raise SpeechProviderError(f"{self._pool.name} gave an answer of the wrong kind")
        return reply.pcm

    async def aclose(self) -> None:
        """End its process; speech under way fails."""
        await self._pool.aclose()


def _require_installed() -> None:
    if importlib.util.find_spec("espeakng_loader") is None:
        raise SpeechProviderError(
            "the speech synthesizer (espeak-ng) is not installed: pip install 'voicethere[speech]'"
        )
