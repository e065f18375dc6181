"""Finds values that are secret because of the name in front: `password=…`, `"api_key": "…"`, `Cookie: …`.

It reads whatever people write names and values in: key=value pairs, JSON and Python literals (also inside
other strings, where quotes are escaped), query strings, HTTP headers, command lines, YAML, XML elements.
Which names are meant is `secret_names`' concern. It errs towards hiding: a value whose end is missing or
unclear ends at the line's end. Linear: the text is read once, from left to right.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from voicethere.errors.secret_names import Sensitivity, may_hold_name, sensitivity, vocabulary
from voicethere.errors.secret_shapes import Span

_HARMLESS_VALUES = vocabulary(
    "none null nil undefined true false yes no on off str string int integer float number bytes bool "
    "boolean any object optional required missing"
)
_QUERY_ONLY_NAMES = frozenset({"key", "code", "sid", "session", "sessionid", "session_id", "state", "hmac"})
_QUERY_ONLY_LENGTH = 16
_SCHEMES = frozenset(["bearer", "basic", "token", "apikey", "api-key", "key", "jwt", "negotiate", "ntlm"])
_SCHEMES_WITH_PARAMETERS = frozenset(["digest", "signature", "oauth", "hawk", "mac"])


# ------------------------------------------------------------------ what the grammar is made of


@functools.cache
def _name_and_separator() -> re.Pattern[str]:
    return re.compile(
        r"(?<![A-Za-z0-9_.\-])(?P<name>[A-Za-z0-9_.\-]++)"
        r"(?:(?P<quote>\\{0,7}[\"'`])?(?:\]|%5[dD])?[ \t]{0,8}"
        r"(?P<separator>=>|:=|!?={1,3}|:|%(?:25)?3[dD]|>|,)"
        r"|(?P<gap>[ \t]{1,4})(?=[\"'`]|\\{1,7}[\"'`]|[^\s\-]))"
    )


@functools.cache
def _opening_quote() -> re.Pattern[str]:
    return re.compile(r"(?:[bBuUrRfF]{1,2}(?=[\"']))?(?P<slashes>\\{0,7})(?P<quote>\"\"\"|'''|[\"'`])")


@functools.cache
def _any_quote() -> re.Pattern[str]:
    return re.compile(r"(?P<slashes>\\*+)(?P<quote>[\"'`])")


@functools.cache
def _bracket() -> re.Pattern[str]:
    return re.compile(r"[\[\](){}]")


@functools.cache
def _unquoted() -> re.Pattern[str]:
    # Separators, closers and quotes belong to a value when more of it follows, and end it otherwise.
    return re.compile(
        r"(?:[^\s,;&\"'`>)\]}|\\%]"
        r"|[,;&|](?!\s|\Z|[\w.\-%\[\]]{1,64}[=:])"
        r"|[>)\]}](?![\s,;&.>)\]}\"'`|]|\Z)"
        r"|[\"'`](?=[A-Za-z0-9])"
        r"|\\(?!\\{0,6}[\"'`])"
        r"|%(?!26[\w.\-]{1,64}%3[dD]))+"
    )


@functools.cache
def _cookie_pairs() -> re.Pattern[str]:
    return re.compile(r"[^\s;]++(?:;[ \t]*+[^\s;]++)*")


@functools.cache
def _line_break() -> re.Pattern[str]:
    return re.compile(r"[\r\n]")


@functools.cache
def _phrase() -> re.Pattern[str]:
    return re.compile(r"[^\r\n,;=:{}\"'`<>]*+(?=[\r\n]|\Z)")


@functools.cache
def _scheme() -> re.Pattern[str]:
    return re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9\-]{0,31}+)[ \t]{1,8}(?=\S)")


@functools.cache
def _number() -> re.Pattern[str]:
    return re.compile(r"[+\-]?[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+\-]?[0-9]+)?[%.]?")


def is_number(text: str) -> bool:
    """Whether `text` is a number as people and programs write them."""
    return len(text) <= 64 and _number().fullmatch(text) is not None


def is_harmless(text: str, level: Sensitivity) -> bool:
    """Whether `text` cannot be the secret that a name of this sensitivity announces."""
    if not text or text.lower() in _HARMLESS_VALUES:
        return True
    return level is Sensitivity.COUNT and is_number(text)


# ------------------------------------------------------------------ the scan


def assigned_secrets(text: str) -> Iterator[Span]:
    """The values of every name that announces a secret, without the quotes around them."""
    if not may_hold_name(text) and "state" not in text.lower() and "hmac" not in text.lower():
        return iter(())  # the names of `_QUERY_ONLY_NAMES` that hold no such hint are these two
    return _Scan(text).spans()


class _Scan:
    """One pass over one text. What a look ahead found out is kept, so that no stretch is read twice."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._closing: dict[int, int] | None = None
        self._line = (0, -1)
        self._unclosed: dict[tuple[str, int, int], int] = {}

    def spans(self) -> Iterator[Span]:
        find = _name_and_separator().search
        position = 0
        while (match := find(self._text, position)) is not None:
            position = match.end()
            level = self._level(match)
            if level is Sensitivity.PLAIN:
                continue
            found = self._value(match)
            if found is None:
                continue
            start, end = found
            if not is_harmless(self._text[start:end].strip(), level):
                yield start, end
                position = max(position, end)

    # -------------------------------------------------------------- is it a secret's name?

    def _level(self, match: re.Match[str]) -> Sensitivity:
        text, name = self._text, match["name"]
        start, separator = match.start(), match["separator"]
        if start and text[start - 1] == "%" and len(name) > 2:
            name = name[2:]  # the rest of an encoded character, as in %26token%3D
        if not self._separates(match, name):
            return Sensitivity.PLAIN
        before = self._word_before(start) if not match["quote"] else ""
        level = sensitivity(f"{before} {name}" if before else name)
        if level is Sensitivity.PLAIN and separator == "=" and name.lower() in _QUERY_ONLY_NAMES:
            long_enough = len(self._unquoted_text(match.end())) >= _QUERY_ONLY_LENGTH
            if long_enough and text[max(0, start - 1) : start] in ("?", "&", "#"):
                return Sensitivity.SECRET
        return level

    def _separates(self, match: re.Match[str], name: str) -> bool:
        """Whether what follows the name puts a value behind it."""
        text, separator = self._text, match["separator"]
        start, end = match.span()
        if separator is None:
            # `--password hunter2`, or a quoted word right behind the name: `invalid password "hunter2"`.
            return name.startswith("--") or text[end] in "\"'`\\"
        if separator == ",":
            # `("cookie", "a=b")`, and `"--password", "hunter2"` of an argument list.
            return bool(match["quote"]) and (name.startswith("--") or self._is_pair(start, end))
        if separator == ">":
            return not match["quote"] and text[max(0, start - 1) : start] in ("<", ":")
        return not (separator == ":" and text.startswith("//", end))

    def _word_before(self, start: int) -> str:
        """The word in front of a name of two words, such as `api key: …`."""
        if start < 2 or self._text[start - 1] not in " \t":
            return ""
        window = self._text[max(0, start - 33) : start - 1]
        word = window.rsplit(None, 1)[-1] if window.strip() else ""
        return word if word.isalnum() and window.endswith(word) else ""

    def _is_pair(self, start: int, end: int) -> bool:
        """Whether the quoted name at `start` and the value at `end` are all that a pair of brackets holds."""
        opening = self._text[max(0, start - 12) : start].rstrip("\\\"'`bBuU").rstrip()
        if not opening.endswith(("(", "[")):
            return False
        value = self._quoted(self._skip_blanks(end, newlines=True))
        if value is None:
            return False
        rest = self._text[value[1] : value[1] + 16].lstrip("\\\"'`").lstrip()
        return rest[:1] in (")", "]")

    # -------------------------------------------------------------- where is its value?

    def _value(self, match: re.Match[str]) -> Span | None:
        name, text = match["name"].lower(), self._text
        quoted_name = bool(match["quote"])
        start = self._skip_blanks(match.end(), newlines=quoted_name)
        quoted = self._quoted(start, to_end=quoted_name)
        if quoted is not None:
            return quoted if quoted[0] < quoted[1] else None
        if start >= len(text) or match["separator"] == ",":
            return None
        if text[start] in "[{(":
            return start, self._closing_bracket(start)
        if match["separator"] == ">":
            stop = text.find("<", start)
            return start, (len(text) if stop < 0 else stop)
        if name.endswith("authorization"):
            return self._authorization(start)
        if name.endswith(("cookie", "cookies")):
            found = _cookie_pairs().match(text, start)
            return self._trimmed(start, found.end()) if found else None
        if self._begins_line(match.start()) and match["separator"] == ":":
            phrase = _phrase().match(text, start)
            if phrase is not None:
                return start, phrase.end()
        unquoted = _unquoted().match(text, start)
        return (start, unquoted.end()) if unquoted else None

    def _skip_blanks(self, position: int, *, newlines: bool = False) -> int:
        blanks = " \t\r\n" if newlines else " \t"
        while position < len(self._text) and self._text[position] in blanks:
            position += 1
        return position

    def _end_of_line(self, position: int) -> int:
        start, end = self._line
        if not start <= position <= end:
            found = _line_break().search(self._text, position)
            start, end = self._line = position, (found.start() if found else len(self._text))
        return end

    def _unquoted_text(self, start: int) -> str:
        found = _unquoted().match(self._text, start)
        return found.group() if found else ""

    def _begins_line(self, start: int) -> bool:
        line_start = max(self._text.rfind("\n", max(0, start - 64), start) + 1, start - 64, 0)
        return self._text[line_start:start].strip(" \t-") == "" and start - line_start < 64

    def _trimmed(self, start: int, end: int) -> Span:
        while end > start + 1 and self._text[end - 1] in "\"'`)]}>,":
            end -= 1
        return start, end

    def _quoted(self, start: int, *, to_end: bool = False) -> Span | None:
        """The inside of the quoted string at `start`; None where there is none.

        An escaped quote opens a string inside a string; what closes it has as many backslashes. One with
        more may close a text that ends in a backslash, or be an escaped quote in a text that was quoted
        twice: that cannot be told, so it closes nothing. A string that is never closed was cut: it ends with
        its line, or, where it is surely JSON or a literal (`to_end`), with the text.
        """
        text = self._text
        opening = _opening_quote().match(text, start)
        if opening is None:
            return None
        inside, quote, slashes = opening.end(), opening["quote"], len(opening["slashes"])
        if len(quote) == 3:
            stop = text.find(quote, inside)
            return inside, (len(text) if stop < 0 else stop)
        limit = len(text) if to_end else self._end_of_line(inside)
        if inside >= self._unclosed.get((quote, slashes, limit), limit):
            return inside, limit
        for match in _any_quote().finditer(text, inside, limit):
            if match["quote"] == quote and len(match["slashes"]) == slashes:
                return inside, match.end() - 1 - slashes
        self._unclosed[quote, slashes, limit] = inside
        return inside, limit

    def _authorization(self, start: int) -> Span:
        """The credentials of an `Authorization` header; a known scheme stays readable."""
        text = self._text
        scheme = _scheme().match(text, start)
        if scheme is None:
            found = _unquoted().match(text, start)
            return start, (found.end() if found else start)
        word = scheme["scheme"].lower()
        if word in _SCHEMES_WITH_PARAMETERS or word.startswith("aws"):
            return self._trimmed(scheme.end(), self._end_of_line(scheme.end()))
        found = _unquoted().match(text, scheme.end())
        end = found.end() if found else scheme.end()
        return (scheme.end() if word in _SCHEMES else start), end

    def _closing_bracket(self, start: int) -> int:
        """Where the bracket at `start` is closed, or its line's end where it never is."""
        if self._closing is None:
            self._closing = {}
            opened: list[int] = []
            for match in _bracket().finditer(self._text):
                if match.group() in "[{(":
                    opened.append(match.start())
                elif opened:
                    self._closing[opened.pop()] = match.end()
        closing = self._closing.get(start)
        if closing is not None:
            return closing
        return self._end_of_line(start)
