"""pocketsphinx with a grammar of whole phrases, made for one list of phrases at a time and kept for a few.

Knows the decoder's calls, how a list of phrases becomes a finite-state grammar, and when a match is too poor
to be believed. The grammar is built as states and transitions, never as text, so that no phrase can be read
as grammar. It holds the interpreter's lock while it decodes: for a process of its own (`recognizer_process`).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from voicethere.adapters.speech.conditioning import Conditioner
from voicethere.adapters.speech.pronunciation import guess

_KEPT_GRAMMARS = 16
_MAX_GUESSED_WORDS = 2000
_DICTATION = "dictation"

# How much worse than the best of the sounds considered (natural logarithm per 10-ms frame) a phrase may
# fit on the whole, its worst word, and the pauses around it. Measured on synthetic speech (five voices and
# rates, noise up to 20 dB below): phrases of the grammar lie above -4.3, -7.8 and -3.4; of 81 utterances of
# other speech 69 are rejected. What shares most of its words with a phrase is often taken for it.
_MIN_PHRASE_FIT = -4.9
_MIN_WORD_FIT = -8.0
_MIN_PAUSE_FIT = -4.8
_MIN_PAUSE_FRAMES = 4
_CONFIDENCE_SCALE = 5.0


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """`phrase` indexes the phrases asked for; None: nothing of them was said. `confidence` is 0 to 1."""

    phrase: int | None = None
    confidence: float | None = None


class _Fit(msgspec.Struct, frozen=True):
    phrase: float
    worst_word: float
    worst_pause: float

    def believable(self) -> bool:
        return (
            self.phrase >= _MIN_PHRASE_FIT
            and self.worst_word >= _MIN_WORD_FIT
            and self.worst_pause >= _MIN_PAUSE_FIT
        )


class GrammarDecoder:
    """Raises ImportError where pocketsphinx is not installed."""

    def __init__(self) -> None:
        self._grammars: OrderedDict[tuple[tuple[str, ...], ...], str] = OrderedDict()
        self._serial = 0
        self._guessed: dict[str, bool] = {}
        self._conditioner = Conditioner()
        self._decoder = _new_decoder()

    # ------------------------------------------------------------------ words

    def look_up(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """Which of `words` are only guessed, and which cannot be said at all."""
        guessed: list[str] = []
        unknown: list[str] = []
        for word in words:
            if self._guessed.get(word) or self._phones(word) is None:
                (guessed if guess(word, self._phones) else unknown).append(word)
        return guessed, unknown

    def _phones(self, word: str) -> str | None:
        """The dictionary's phones. A word in angle brackets would be one of pocketsphinx's own symbols."""
        if not word or not (word[0].isalpha() or word[0] == "'"):
            return None
        phones: str | None = self._decoder.lookup_word(word)
        return phones

    def _learn(self, words: set[str]) -> set[str]:
        """Teach the decoder guesses for what it lacks; returns the words that none could be made for."""
        missing = {word: guess(word, self._phones) for word in words if self._phones(word) is None}
        taught = {word: phones for word, phones in missing.items() if phones}
        for number, (word, phones) in enumerate(taught.items(), start=1):
            self._decoder.add_word(word, phones, update=number == len(taught))
            self._guessed[word] = True
        return missing.keys() - taught.keys()

    # ------------------------------------------------------------------ phrases

    def recognize(self, pcm: bytes, phrases: Sequence[Sequence[str]]) -> Match:
        """Which phrase (a sequence of words) `pcm` (16 kHz) is.

        Raises:
            ValueError: no phrase has only words that can be said.
        """
        key = tuple(tuple(phrase) for phrase in phrases)
        self._decoder.activate_search(self._grammar(key))
        said = self._decode(pcm)
        wanted = tuple(said.split())
        # A path that ends inside of a phrase is reported too: only a whole phrase counts.
        index = next((number for number, phrase in enumerate(key) if phrase == wanted), None)
        fit = self._fit() if index is not None and wanted else None
        if index is None or fit is None or not fit.believable():
            return Match()
        return Match(phrase=index, confidence=round(min(1.0, math.exp(fit.phrase / _CONFIDENCE_SCALE)), 3))

    def dictate(self, pcm: bytes) -> tuple[str, float | None]:
        """Free dictation with the language model of the wheel: poor, and several times slower."""
        if _DICTATION not in self._grammars.values():
            import pocketsphinx

            self._decoder.add_lm_file(_DICTATION, pocketsphinx.get_model_path("en-us/en-us.lm.bin"))
            self._grammars[()] = _DICTATION
        self._decoder.activate_search(_DICTATION)
        said = self._decode(pcm)
        fit = self._fit() if said else None
        if fit is None:
            return "", None
        return said, round(min(1.0, math.exp(fit.phrase / _CONFIDENCE_SCALE)), 3)

    def _decode(self, pcm: bytes) -> str:
        decoder = self._decoder
        # Forget the last speaker's noise; and the whole utterance at once, for a mean of its own.
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(self._conditioner.condition(pcm), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""

    def _fit(self) -> _Fit | None:
        """How well the last decoding fits, or None where there is nothing to judge."""
        words, pauses, frames = [], [0.0], 0
        total = 0.0
        for segment in self._decoder.seg() or ():
            length = segment.end_frame - segment.start_frame + 1
            # Long stretches underflow to zero; they count as the smallest number that a float holds.
            score = math.log(max(segment.ascore, 5e-324))
            if segment.word.startswith(("<", "[", "(")):
                if length >= _MIN_PAUSE_FRAMES:
                    pauses.append(score / length)
            else:
                words.append(score / length)
                total += score
                frames += length
        return _Fit(total / frames, min(words), min(pauses)) if words else None

    def _grammar(self, key: tuple[tuple[str, ...], ...]) -> str:
        """The name of the search for these phrases; the least recently used ones are forgotten."""
        if key in self._grammars:
            self._grammars.move_to_end(key)
            return self._grammars[key]
        if len(self._guessed) > _MAX_GUESSED_WORDS:  # hostile variety: start over rather than grow
            self._decoder = _new_decoder()
            self._grammars.clear()
            self._guessed.clear()
        hopeless = self._learn({word for phrase in key for word in phrase})
        sayable = sorted({phrase for phrase in key if phrase and not hopeless.intersection(phrase)})
        if not sayable:
            raise ValueError("none of the phrases can be recognized: no word of them can be pronounced")
        self._serial += 1
        name = f"phrases-{self._serial}"
        self._decoder.add_fsg(name, self._decoder.create_fsg(name, 0, 1, _transitions(sayable)))
        self._grammars[key] = name
        while len(self._grammars) > _KEPT_GRAMMARS:
            _, oldest = self._grammars.popitem(last=False)
            self._decoder.remove_search(oldest)
        return name


def _transitions(
    phrases: Sequence[tuple[str, ...]],
) -> list[tuple[int, int, float, str] | tuple[int, int, float]]:
    """Phrases (distinct, not empty) as a tree from state 0 to state 1, all of them equally likely.

    Phrases that begin alike share their states: some hundreds of them cost little more than a few.
    """
    through: dict[tuple[str, ...], int] = {}
    for phrase in phrases:
        for length in range(len(phrase) + 1):
            through[phrase[:length]] = through.get(phrase[:length], 0) + 1
    state_of: dict[tuple[str, ...], int] = {(): 0}
    arcs: list[tuple[int, int, float, str] | tuple[int, int, float]] = []
    for prefix, count in through.items():
        if prefix:
            state_of[prefix] = len(state_of) + 1
            parent = prefix[:-1]
            arcs.append((state_of[parent], state_of[prefix], count / through[parent], prefix[-1]))
    arcs += [(state_of[phrase], 1, 1 / through[phrase]) for phrase in phrases]
    return arcs


def _new_decoder() -> Any:
    import pocketsphinx

    # No language model until somebody dictates: it is most of the memory and of the start.
    return pocketsphinx.Decoder(lm=None, samprate=16000, cmn="batch", loglevel="FATAL")
