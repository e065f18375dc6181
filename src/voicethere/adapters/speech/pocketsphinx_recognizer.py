"""Speech to text with pocketsphinx, offline, from a wheel.

Recognizes the agent's commands well. Without commands it falls back on free dictation, which is poor (every
second word may be wrong): for real dictation another recognizer is needed. American English only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from voicethere.adapters.speech.phrases import MAX_PHRASE_CHARS, MAX_PHRASE_WORDS, MAX_PHRASES, words_of
from voicethere.adapters.speech.worker_pool import SpeechWorkerPool
from voicethere.adapters.speech.worker_protocol import (
    LookUpReply,
    LookUpRequest,
    RecognizeReply,
    RecognizeRequest,
)
from voicethere.core.ports import SpeechProviderError, Transcript, UnknownWords

MAX_UTTERANCE_SECONDS = 60
_BYTES_PER_SECOND = 32_000


class PocketsphinxRecognizer:
    """A `Recognizer` on pocketsphinx, in `workers` processes that all sessions share; a `HintCheck`, too.

    Args:
        workers: how many utterances may be recognized at once.
        waiting: how many more may wait; beyond that they are refused at once.
        timeout_seconds: for one utterance; its process is killed past it.
    """

    def __init__(self, *, workers: int = 1, waiting: int = 32, timeout_seconds: float = 10.0) -> None:
        self._pool = SpeechWorkerPool(
            "the speech recognizer (pocketsphinx)",
            "voicethere.adapters.speech.recognizer_process",
            workers=workers,
            waiting=waiting,
            timeout_seconds=timeout_seconds,
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """Its processes that are idle now."""
        return self._pool.pids

    async def open(self) -> None:
        """Start one process now, so that the first utterance need not wait for it.

        Raises:
            SpeechProviderError: it cannot start.
        """
        _require_installed()
        await self._pool.open()

    async def recognize(self, pcm: bytes, *, hints: Sequence[str]) -> Transcript:
        """The hint that was said, in its own spelling; empty where it was none of them.

        Hints that cannot be recognized are left out (`unknown_words` names them). No hints: free dictation.

        Raises:
            SpeechProviderError: `pcm` is no 16-bit audio or longer than a minute, there are more than
                `MAX_PHRASES` hints, none of them can be recognized, or the provider failed.
        """
        if len(pcm) % 2:
            raise SpeechProviderError(f"{len(pcm)} bytes are no 16-bit audio: the number must be even")
        if len(pcm) > MAX_UTTERANCE_SECONDS * _BYTES_PER_SECOND:
            raise SpeechProviderError(
                f"an utterance of {len(pcm) / _BYTES_PER_SECOND:.0f} s is too long to recognize; "
                f"at most {MAX_UTTERANCE_SECONDS} s are allowed"
            )
        spelling = _distinct(hints)
        if hints and not spelling:
            raise SpeechProviderError(
                f"none of the {len(hints)} commands can be recognized: no words in them"
            )
        if not pcm:
            return Transcript(text="")
        _require_installed()
        reply = await self._pool.request(
            RecognizeRequest(pcm=pcm, phrases=[list(words) for words in spelling])
        )
        if not isinstance(reply, RecognizeReply):
            raise SpeechProviderError(f"{self._pool.name} gave an answer of the wrong kind")
        if not spelling:
            return Transcript(text=reply.words, confidence=reply.confidence)
        if reply.phrase is None:
            return Transcript(text="")
        return Transcript(text=list(spelling.values())[reply.phrase], confidence=reply.confidence)

    async def unknown_words(self, hints: Sequence[str]) -> Sequence[UnknownWords]:
        """The hints that are not simply known: with words that are in no dictionary, too long, or empty.

        Where the pronunciation of all these words can be guessed, the hint is recognizable.

        Raises:
            SpeechProviderError: more than `MAX_PHRASES` hints, or the provider failed.
        """
        _refuse_too_many(hints)
        words_by_hint = {hint: words_of(hint) for hint in hints}
        words = sorted({word for words in words_by_hint.values() for word in words})
        _require_installed()
        reply = await self._pool.request(LookUpRequest(words=words))
        if not isinstance(reply, LookUpReply):
            raise SpeechProviderError(f"{self._pool.name} gave an answer of the wrong kind")
        problems = []
        for hint, hint_words in words_by_hint.items():
            unknown = tuple(word for word in hint_words if word in reply.unknown)
            guessed = tuple(word for word in hint_words if word in reply.guessed)
            if unknown or not hint_words:
                problems.append(_problem(hint, unknown, recognizable=False))
            elif guessed:
                problems.append(_problem(hint, guessed, recognizable=True))
        return problems

    async def aclose(self) -> None:
        """End its processes; utterances under way fail."""
        await self._pool.aclose()


def _distinct(hints: Sequence[str]) -> dict[tuple[str, ...], str]:
    """Words → the spelling to give back; of hints that sound alike the first counts."""
    _refuse_too_many(hints)
    spelling: dict[tuple[str, ...], str] = {}
    for hint in hints:
        if words := words_of(hint):
            spelling.setdefault(words, hint)
    return spelling


def _problem(hint: str, words: tuple[str, ...], *, recognizable: bool) -> UnknownWords:
    if recognizable:
        reason = f"the pronunciation of {', '.join(words)} was guessed"
    elif words:
        reason = f"no pronunciation is known for {', '.join(words)}"
    else:
        reason = f"it holds no words, or more than {MAX_PHRASE_WORDS} words or {MAX_PHRASE_CHARS} characters"
    return UnknownWords(hint=hint, words=words, recognizable=recognizable, reason=reason)


def _refuse_too_many(hints: Sequence[str]) -> None:
    if len(hints) > MAX_PHRASES:
        raise SpeechProviderError(
            f"{len(hints)} commands are too many for the offline recognizer; it takes at most {MAX_PHRASES}"
        )


def _require_installed() -> None:
    if importlib.util.find_spec("pocketsphinx") is None:
        raise SpeechProviderError(
            "the speech recognizer (pocketsphinx) is not installed: pip install 'voicethere[speech]'"
        )
