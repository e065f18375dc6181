"""Finds a project's own secret values in a text, however they were written there.

A value is known letter by letter, so it is found raw, percent-encoded (also twice), escaped as JSON, Python
or HTML write it, and in base64, alone or inside a longer encoded text. Values of fewer than four characters
(and `true`, `false`, `null`, `none`) are ignored: hiding them would make every text unreadable and hide
nothing. Long values are looked for in pieces, so that a part of one is found too.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator

from voicethere.errors.secret_shapes import Span

MINIMUM_LENGTH = 4
_TOO_COMMON = frozenset({"true", "false", "null", "none"})
_LONG = 256
_PIECE = 128
_MINIMUM_PREFIX = 8
_MINIMUM_BASE64 = 8
_LONGEST_RUN = 2048
_CUT_MARKS = "….\"'`)]} \t\r\n"

_BASE64_RUN = re.compile(r"[A-Za-z0-9+/_=\-]*+")
_ALNUM_RUN = re.compile(r"[A-Za-z0-9]+")
_ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\v": "v"}
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&(?:quot|#34|#x22);", "'": "&(?:apos|#39|#x27);"}


class OwnSecrets:
    """Compiled once for a project's values; nothing in it changes afterwards, and it never prints them."""

    __slots__ = ("_encoded", "_prefixes", "_written")

    def __init__(self, values: Iterable[str]) -> None:
        kept = sorted({v for v in values if len(v) >= MINIMUM_LENGTH and v.lower() not in _TOO_COMMON})
        pieces = sorted({piece for value in kept for piece in _pieces(value)})
        self._written = tuple((_longest_word(piece), _pattern(piece)) for piece in pieces)
        self._encoded = tuple(sorted({form for value in kept for form in _base64_forms(value)}))
        self._prefixes = tuple(value for value in kept if len(value) > _MINIMUM_PREFIX)

    def __repr__(self) -> str:
        return f"<OwnSecrets: {len(self._written)} patterns>"

    def spans(self, text: str) -> Iterator[Span]:
        """Every occurrence, overlapping ones too, and the beginning of a value with which a cut text ends."""
        for word, pattern in self._written:
            if word in text:
                for match in pattern.finditer(text):
                    yield match.span(1)
        for form in self._encoded:
            at = text.find(form)
            while at >= 0:
                yield _base64_run(text, at, at + len(form))
                at = text.find(form, at + len(form))
        yield from self._cut_at_end(text)

    def _cut_at_end(self, text: str) -> Iterator[Span]:
        if not self._prefixes:
            return
        whole = text[-2 * _LONG :]
        for tail in {whole, whole.rstrip(_CUT_MARKS)}:
            end = len(text) - len(whole) + len(tail)
            for value in self._prefixes:
                at = tail.find(value[:_MINIMUM_PREFIX])
                while at >= 0:
                    if value.startswith(tail[at:]):
                        yield end - (len(tail) - at), end
                        break
                    at = tail.find(value[:_MINIMUM_PREFIX], at + 1)


def _pieces(value: str) -> list[str]:
    if len(value) <= _LONG:
        return [value]
    cuts = range(0, len(value) - _PIECE + 1, _PIECE)
    return [value[at : at + _PIECE] for at in cuts] + [value[-_PIECE:]]


def _longest_word(value: str) -> str:
    """The longest part that every way of writing leaves alone: where it is missing, so is the value."""
    return max(_ALNUM_RUN.findall(value), key=len, default="")


def _pattern(value: str) -> re.Pattern[str]:
    # In a lookahead, so that occurrences which overlap are all found.
    return re.compile("(?=(" + "".join(map(_ways_to_write, value)) + "))")


def _ways_to_write(char: str) -> str:
    if char.isascii() and char.isalnum():
        return char
    try:
        encoded = char.encode()
    except UnicodeEncodeError:
        return re.escape(char)
    percent = "".join(f"%(?:25)*{_either_case(f'{byte:02x}')}" for byte in encoded)
    ways = [re.escape(char), percent]
    code = ord(char)
    if code > 0xFFFF:
        high, low = 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF)
        ways.append(rf"\\+u{_either_case(f'{high:04x}')}\\+u{_either_case(f'{low:04x}')}")
        ways.append(rf"\\+U{_either_case(f'{code:08x}')}")
    else:
        ways.append(rf"\\+u{_either_case(f'{code:04x}')}")
    if code < 0x100:
        ways.append(rf"\\+x{_either_case(f'{code:02x}')}")
    if len(encoded) > 1:
        ways.append("".join(rf"\\+x{byte:02x}" for byte in encoded))
    if char in "\"'/":
        ways.append(rf"\\+{char}")
    if char == "\\":
        ways[0] = r"\\+"
    if char in _ESCAPES:
        ways.append(rf"\\+{_ESCAPES[char]}")
    if char == " ":
        ways.append(r"\+")
    if char in _HTML:
        ways.append(_HTML[char])
    return "(?:" + "|".join(ways) + ")"


def _either_case(digits: str) -> str:
    return "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in digits)


def _base64_forms(value: str) -> set[str]:
    """What of `value` shows in base64, at each of the three places where it can stand in its bytes."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        return set()
    whole = _base64(data)
    forms = {whole}
    if len(whole.rstrip("=")) >= _MINIMUM_BASE64 - 2:
        forms.add(whole.rstrip("="))
    for offset, unstable in ((0, 0), (1, 2), (2, 3)):
        encoded = _base64(b"\0" * offset + data).rstrip("=")
        # The last character shares its bits with what follows, unless the bytes come out even.
        stable = encoded[unstable:] if (offset + len(data)) % 3 == 0 else encoded[unstable:-1]
        if len(stable) >= _MINIMUM_BASE64:
            forms.add(stable)
    return forms | {form.replace("+", "-").replace("/", "_") for form in forms}


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _base64_run(text: str, start: int, end: int) -> Span:
    """The whole run of base64 around a form: what stands beside the value can be decoded with it."""
    after = _BASE64_RUN.match(text, end, end + _LONGEST_RUN)
    before = _BASE64_RUN.match(text[max(0, start - _LONGEST_RUN) : start][::-1])
    return start - (before.end() if before else 0), (after.end() if after else end)
