"""A guess at how a word is said that the dictionary lacks: product names, coinages, abbreviations.

Pure. A guess is good enough to tell a command from a few hundred others, not to teach anybody English.
Phones are those of the CMU dictionary (ARPAbet without stress).
"""

from __future__ import annotations

import re
from collections.abc import Callable

LookUp = Callable[[str], str | None]
"""A dictionary: the phones of a word, separated by spaces, or None."""

MAX_WORD_CHARS = 40
_SPELLED_OUT = re.compile(r"[b-df-hj-np-tv-xz]{2,6}")
_LATIN = re.compile(r"[a-z']+")

# Longest first where one begins with another.
_SOUNDS: tuple[tuple[str, str], ...] = (
    ("tion", "SH AH N"),
    ("sion", "ZH AH N"),
    ("ough", "AO"),
    ("eigh", "EY"),
    ("tch", "CH"),
    ("igh", "AY"),
    ("dge", "JH"),
    ("sch", "S K"),
    ("eau", "OW"),
    ("ch", "CH"),
    ("sh", "SH"),
    ("th", "TH"),
    ("ph", "F"),
    ("wh", "W"),
    ("ck", "K"),
    ("ng", "NG"),
    ("qu", "K W"),
    ("gh", "G"),
    ("kn", "N"),
    ("wr", "R"),
    ("ee", "IY"),
    ("ea", "IY"),
    ("ie", "IY"),
    ("ei", "EY"),
    ("ai", "EY"),
    ("ay", "EY"),
    ("ey", "IY"),
    ("oa", "OW"),
    ("oo", "UW"),
    ("ou", "AW"),
    ("ow", "OW"),
    ("oi", "OY"),
    ("oy", "OY"),
    ("au", "AO"),
    ("aw", "AO"),
    ("ew", "Y UW"),
    ("ue", "UW"),
    ("ar", "AA R"),
    ("er", "ER"),
    ("ir", "ER"),
    ("or", "AO R"),
    ("ur", "ER"),
    ("ce", "S EH"),
    ("ci", "S IH"),
    ("cy", "S IY"),
    ("ge", "JH EH"),
    ("gi", "JH IH"),
    ("a", "AE"),
    ("b", "B"),
    ("c", "K"),
    ("d", "D"),
    ("e", "EH"),
    ("f", "F"),
    ("g", "G"),
    ("h", "HH"),
    ("i", "IH"),
    ("j", "JH"),
    ("k", "K"),
    ("l", "L"),
    ("m", "M"),
    ("n", "N"),
    ("o", "AA"),
    ("p", "P"),
    ("q", "K"),
    ("r", "R"),
    ("s", "S"),
    ("t", "T"),
    ("u", "AH"),
    ("v", "V"),
    ("w", "W"),
    ("x", "K S"),
    ("y", "Y"),
    ("z", "Z"),
)
# At the end of a word these say something else.
_ENDINGS: tuple[tuple[str, str], ...] = (
    ("le", "AH L"),
    ("y", "IY"),
    ("o", "OW"),
    ("a", "AH"),
    ("i", "IY"),
    ("u", "UW"),
)
_LONG = {"a": "EY", "e": "IY", "i": "AY", "o": "OW", "u": "UW"}
_SILENT_E = re.compile(r"([aeiou])([b-df-hj-np-tv-z])e$")
_LETTER_NAMES = {
    "b": "B IY",
    "c": "S IY",
    "d": "D IY",
    "f": "EH F",
    "g": "JH IY",
    "h": "EY CH",
    "j": "JH EY",
    "k": "K EY",
    "l": "EH L",
    "m": "EH M",
    "n": "EH N",
    "p": "P IY",
    "q": "K Y UW",
    "r": "AA R",
    "s": "EH S",
    "t": "T IY",
    "v": "V IY",
    "w": "D AH B AH L Y UW",
    "x": "EH K S",
    "z": "Z IY",
}


def guess(word: str, look_up: LookUp) -> str | None:
    """Phones for `word` (lower case): of two known words, letter by letter, or by what letters mostly say.

    None where no guess is possible: a foreign script, or longer than `MAX_WORD_CHARS`.
    """
    if len(word) > MAX_WORD_CHARS or not _LATIN.fullmatch(word) or not word.strip("'"):
        return None
    if word.endswith("'s") and (stem := look_up(word[:-2])):
        return f"{stem} Z"
    word = word.replace("'", "")
    compound = _two_words(word, look_up)
    if compound:
        return compound
    if _SPELLED_OUT.fullmatch(word):
        return " ".join(_LETTER_NAMES[letter] for letter in word)
    return _by_letters(word)


def _two_words(word: str, look_up: LookUp) -> str | None:
    """`voicethere` is said like `voice` and `there`; both parts of three letters or more, evenly split."""
    middle = len(word) // 2
    for cut in sorted(range(3, len(word) - 2), key=lambda cut: abs(cut - middle)):
        first, second = look_up(word[:cut]), look_up(word[cut:])
        if first and second:
            return f"{first} {second}"
    return None


def _by_letters(word: str) -> str:
    phones: list[str] = []
    position = 0
    silent_e = _SILENT_E.search(word)
    end = len(word) - 1 if silent_e else len(word)
    while position < end:
        rest = word[position:end]
        if silent_e and position == silent_e.start():
            sound, length = _LONG[rest[0]], 1
        elif position and (ending := next((e for e in _ENDINGS if e[0] == rest), None)):
            length, sound = len(ending[0]), ending[1]
        else:
            letters, sound = next(entry for entry in _SOUNDS if rest.startswith(entry[0]))
            length = len(letters)
        if not phones or phones[-1] != sound:  # a doubled letter is said once
            phones.append(sound)
        position += length
    return " ".join(phones)
