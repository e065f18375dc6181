"""Cuts text that arrives in pieces into sentences: the first can be spoken while the rest is being written.

Knows marks, spaces and a handful of abbreviations; nothing of languages, of speech, or of who writes. What
is cut depends on the text alone, never on the pieces in which it came.
"""

from __future__ import annotations

import re

MAX_SENTENCE_CHARS = 200
"""A run without an end is cut at this length at the latest: at a comma or a space before, if there is one."""
_MIN_CLAUSE_CHARS = 80

_MARKS = ".!?…؟۔।॥"
_WIDE_MARKS = "。！？｡"
_CLOSERS = r"\"'”’»)\]}」』】）》〉"
_END = re.compile(
    # A mark ends a sentence where space follows: not in 3.14, nor in voicethere.agent.
    rf"(?P<mark>[{_MARKS}]++)(?P<closers>[{_CLOSERS}]*+)(?=\s)"
    # These do anyway; one more character tells that no closing quote follows.
    rf"|[{_WIDE_MARKS}]++[{_CLOSERS}]*+(?=[^{_WIDE_MARKS}{_CLOSERS}])"
    r"|\n"
)
_LETTER = re.compile(r"[^\W_]")
_CLAUSE = re.compile(r"[,;:،](?=\s)|[、，；：]")
_LAST_WORD = re.compile(r"[\w.]+\Z")
_ABBREVIATIONS = frozenset(
    ["mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "mme", "mlle", "vs", "cf", "approx", "e.g", "i.e"]
)


class SentenceCutter:
    """Text in, whole sentences out; all that came out, joined, is all that went in.

    White space stays in front of the sentence that follows it.

    Example:
        >>> cutter = SentenceCutter()
        >>> cutter.feed("Hello the"), cutter.feed("re. How are"), cutter.finish()
        ([], ['Hello there.'], ' How are')
    """

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, text: str) -> list[str]:
        """The sentences that are complete now, oldest first."""
        self._rest += text
        sentences = []
        start = 0
        while (end := _end_of_sentence(self._rest, start)) is not None:
            sentences.append(self._rest[start:end])
            start = end
        self._rest = self._rest[start:]
        return sentences

    def finish(self) -> str:
        """What is left once the text is over; may be empty."""
        rest, self._rest = self._rest, ""
        return rest


def _end_of_sentence(text: str, start: int) -> int | None:
    """Where the sentence that begins at `start` ends; None where only more text can tell."""
    limit = start + MAX_SENTENCE_CHARS
    word = _LETTER.search(text, start, limit)
    if word is not None:  # before one there is nothing that could be said
        # One character further: what follows an end has to be seen.
        for match in _END.finditer(text, word.end(), limit + 1):
            if match.end() <= limit and _ends_here(text[start : match.start()], match):
                return match.end()
    if len(text) <= limit:
        return None
    return start + _length_of_run(text[start:limit])


def _ends_here(before: str, match: re.Match[str]) -> bool:
    if match["mark"] != "." or match["closers"]:
        return True
    if before.strip().isdigit():
        return False  # the number of an item: "1. Grind the beans."
    found = _LAST_WORD.search(before)
    word = found[0] if found is not None else ""
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    return not is_initial and word.lower() not in _ABBREVIATIONS


def _length_of_run(run: str) -> int:
    """How much of a run that is too long to be one sentence makes a part of its own."""
    clauses = [match.end() for match in _CLAUSE.finditer(run) if match.end() >= _MIN_CLAUSE_CHARS]
    if clauses:
        return clauses[-1]
    words = run.rstrip()
    space = max((match.start() for match in re.finditer(r"\s", words)), default=0)
    if len(words) < len(run):
        space = len(words)
    return space if run[:space].strip() else len(run)
