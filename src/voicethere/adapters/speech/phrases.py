"""From a phrase as people write it to the words that a pronouncing dictionary lists.

Pure. `Turn on lamp #2, please!` becomes `turn on lamp number two please`; the caller keeps the original to
give it back.
"""

from __future__ import annotations

import re
import unicodedata

MAX_PHRASES = 500
MAX_PHRASE_CHARS = 200
MAX_PHRASE_WORDS = 24

_ONES: tuple[str, ...] = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ONES += ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen")
_ONES += ("nineteen",)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_SYMBOLS = {"&": " and ", "%": " percent ", "+": " plus ", "@": " at ", "#": " number ", "=": " equals "}
_TOKEN = re.compile(r"\d+(?:st|nd|rd|th)\b|\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)*'?")
_ACCENT = re.compile(r"(?<=[a-z])[\u0300-\u036f]+")  # of Latin letters only: elsewhere they make the letter
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}\b)")


def words_of(phrase: str) -> tuple[str, ...]:
    """The words of `phrase`: lower case, numbers spelled out, punctuation and accents gone.

    Empty where nothing is left to be said, or where the phrase is longer than `MAX_PHRASE_CHARS` or
    `MAX_PHRASE_WORDS`.
    """
    if len(phrase) > MAX_PHRASE_CHARS:
        return ()
    text = _ACCENT.sub("", unicodedata.normalize("NFKD", phrase).casefold())
    text = unicodedata.normalize("NFC", text).replace("\u2019", "'").replace("\u2018", "'")
    for symbol, spoken in _SYMBOLS.items():
        text = text.replace(symbol, spoken)
    # What an expression calls a word character can be a number that is no digit: those go too.
    text = "".join(char if char.isalpha() or char.isdecimal() or char in ".,'" else " " for char in text)
    words: list[str] = []
    for token in _TOKEN.findall(_GROUPED.sub("", text)):
        words += _number(token) if token[0].isdecimal() else [token.rstrip("'")]
        if len(words) > MAX_PHRASE_WORDS:
            return ()
    return tuple(words)


def _number(token: str) -> list[str]:
    digits = re.match(r"\d+", token)
    assert digits is not None
    rest = token[digits.end() :]
    whole = _cardinal(digits.group())
    if rest.startswith("."):
        return [*whole, "point", *(_ONES[int(digit)] for digit in rest[1:])]
    if rest:
        last = whole[-1]
        whole[-1] = _ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return whole


def _cardinal(digits: str) -> list[str]:
    """Up to 999,999 as a number; longer ones and those with a leading zero digit by digit, as people do."""
    if len(digits) > 6 or (len(digits) > 1 and digits[0] == "0"):
        return [_ONES[int(digit)] for digit in digits]
    number = int(digits)
    if number >= 1000:
        return [*_below_thousand(number // 1000), "thousand", *_below_thousand(number % 1000)]
    return _below_thousand(number) or ["zero"]


def _below_thousand(number: int) -> list[str]:
    words: list[str] = []
    if number >= 100:
        words += [_ONES[number // 100], "hundred"]
        number %= 100
    if number >= 20:
        words.append(_TENS[number // 10 - 2])
        number %= 10
    if number:
        words.append(_ONES[number])
    return words
