"""Text on its way to a synthesizer: cleaned of what is not speech, cut into segments of bounded length.

Pure. An agent's text is hostile: whatever it holds, what comes out is printable, bounded and encodable.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

MAX_TEXT_CHARS = 10_000
"""About a quarter of an hour of speech; a synthesizer refuses more in one call."""
SEGMENT_CHARS = 240
"""Some twenty seconds of speech: what is held in memory at once, and what a cancellation may waste."""

# Controls, formats (zero-width, bidirectional), surrogates, private use, unassigned.
_UNSPEAKABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_SENTENCE_END = re.compile(r"(?<=[.!?…。！？])\s+")
_CLAUSE_END = re.compile(r"(?<=[,;:，；：])\s+")


def clean_text(text: str) -> str:
    """`text` with control, format and unassigned characters gone and white space made single spaces."""
    kept = (
        char if unicodedata.category(char) not in _UNSPEAKABLE else " " if char.isspace() else ""
        for char in text
    )
    return " ".join("".join(kept).split())


def segments(text: str, limit: int = SEGMENT_CHARS) -> Iterator[str]:
    """Cleaned text in pieces of at most `limit` characters, cut at sentences, else clauses, else words.

    Sentences are kept together as far as the limit allows. Joined with spaces the pieces are the text again,
    except where a single word is longer than the limit.
    """
    pending = ""
    for piece in _pieces(text, limit, (_SENTENCE_END, _CLAUSE_END, re.compile(r"\s+"))):
        joined = f"{pending} {piece}" if pending else piece
        if len(joined) <= limit:
            pending = joined
        else:
            yield pending
            pending = piece
    if pending:
        yield pending


def _pieces(text: str, limit: int, cuts: tuple[re.Pattern[str], ...]) -> Iterator[str]:
    if len(text) <= limit:
        if text:
            yield text
        return
    if not cuts:
        for start in range(0, len(text), limit):
            yield text[start : start + limit]
        return
    for part in cuts[0].split(text):
        yield from _pieces(part, limit, cuts[1:])
