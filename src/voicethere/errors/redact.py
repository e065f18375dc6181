"""Takes secrets out of texts and of nested values, when a record is made and before anything is sent.

A `Redactor` knows how spans that must not be shown become `[redacted]`; what such a span is, is found by
`secret_shapes`, `assignments` and `own_secrets`. It holds no text after it returns.

What it promises: it never raises for what it is given, takes time in proportion to it (up to a bound, past
which the middle is left out), and redacting twice is the same as once. A secret of up to 8 KiB that lies
across the place where the middle was left out is gone whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from typing import Any

from voicethere.errors.assignments import assigned_secrets, is_harmless
from voicethere.errors.own_secrets import OwnSecrets
from voicethere.errors.secret_names import Sensitivity, sensitivity
from voicethere.errors.secret_shapes import (
    SHORTEST_SHAPE,
    Span,
    bearer_tokens,
    card_numbers,
    known_keys,
    pem_blocks,
    url_passwords,
)

REDACTED = "[redacted]"

MAX_TEXT_CHARS = 128 * 1024
MARGIN_CHARS = 8 * 1024
MAX_DEPTH = 24
MAX_NODES = 4_000
MAX_VALUE_CHARS = 256 * 1024

_PASSES = 6
_TOUCHES_EVERY_PATTERN = (
    "bearer token -----BEGIN A-----\n-----END A----- -----END A----- -----BEGIN A----- 4111 1111 1111 1111 "
    "a://b:c@d a://b:c/d 'token': 'x' token=x token=[x] cookie: a=b authorization: digest x\ntoken: x"
)
_MARK_CHARS = 64
_NAME_KEYS = frozenset({"name", "key", "header", "field", "param", "parameter", "variable"})
_VALUE_KEYS = frozenset({"value", "val", "content", "contents", "default"})


class Redactor:
    """Redacts texts and values; immutable, and safe to share.

    `secrets` are the project's own secret values. They are found raw, URL-encoded, JSON-escaped and in
    base64; values of fewer than 4 characters are ignored (see `own_secrets`).

    Example:
        >>> Redactor(["hunter2"]).text("login failed: hunter2, Authorization: Bearer abc123")
        'login failed: [redacted], Authorization: Bearer [redacted]'
    """

    __slots__ = ("_own",)

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._own = OwnSecrets(secrets)
        # Compile every pattern now: the first error of a process must not wait for it.
        self.text(_TOUCHES_EVERY_PATTERN)

    def __repr__(self) -> str:
        return f"<Redactor: {self._own!r}>"

    def text(self, text: str, *, limit: int = MAX_TEXT_CHARS) -> str:
        """`text` without its secrets. Past `limit` characters its middle is left out, visibly.

        About half of `limit` is kept at either end; a `[redacted]` counts as one character.
        """
        limit = max(4 * _MARK_CHARS, min(limit, MAX_TEXT_CHARS))
        if len(text) > limit and len(text) - (len(REDACTED) - 1) * text.count(REDACTED) > limit:
            text = self._ends(text, limit // 2 - _MARK_CHARS)
        return self._until_clean(text)

    def value(self, value: Any) -> Any:
        """`value` as plain JSON data without its secrets: keys, values, and what names announce.

        Mappings become dicts with text keys, sets lists; lists and tuples stay what they are; whatever
        JSON does not know becomes its text. Cycles, depth and size are cut, visibly.
        """
        try:
            return _Walk(self).visit(value, 0)
        except Exception:  # such as a `__class__` that raises when it is looked at
            return "[left out: cannot be read]"

    def _until_clean(self, text: str) -> str:
        """Redact until nothing is found any more: hiding one thing can bring another to light."""
        for _ in range(_PASSES):
            spans = list(self._spans(text))
            shorter = _without(text, spans, 0, len(text)) if spans else text
            if shorter == text:
                return text
            text = shorter
        return REDACTED

    def _ends(self, text: str, keep: int) -> str:
        # Each end is redacted with a margin beyond the cut, which is then dropped: whatever lies across
        # the cut was seen whole, and is hidden as a whole.
        head, tail = text[: keep + MARGIN_CHARS], text[-(keep + MARGIN_CHARS) :]
        start = len(tail) - keep
        if len(tail) < len(text) and not tail[start - 1].isspace():
            # A word that has no end within the margin may be one long secret: leave all of it out.
            start = next((at for at in range(start, len(tail)) if tail[at].isspace()), len(tail))
        beginning = _without(head, self._spans(head), 0, keep)
        end = _without(tail, self._spans(tail), start, len(tail))
        return f"{beginning}\n[… {len(text) - keep - (len(tail) - start)} characters left out …]\n{end}"

    def _spans(self, text: str) -> Iterator[Span]:
        if len(text) < SHORTEST_SHAPE:
            # Such as most keys and names of JSON: too short for the looks of a secret.
            return chain(self._own.spans(text), url_passwords(text), assigned_secrets(text))
        return chain(
            self._own.spans(text),
            known_keys(text),
            bearer_tokens(text),
            pem_blocks(text),
            card_numbers(text),
            url_passwords(text),
            assigned_secrets(text),
        )


def _without(text: str, spans: Iterable[Span], start: int, end: int) -> str:
    """`text[start:end]` with every span in it replaced; spans that touch or overlap become one."""
    placeholders = _occurrences(text, REDACTED)
    merged: list[list[int]] = []
    for first, last in _widened(sorted(spans), placeholders):
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    parts: list[str] = []
    at = start
    for first, last in merged:
        if last <= at or first >= end:
            continue
        parts.append(text[at : max(at, first)])
        parts.append(REDACTED)
        at = last
    parts.append(text[at:end])
    return "".join(parts)


def _widened(spans: Sequence[Span], placeholders: Sequence[Span]) -> Iterator[Span]:
    """The spans that hide something new, each with the placeholders that it cuts into."""
    at = 0
    for start, end in spans:
        while at < len(placeholders) and placeholders[at][1] <= start:
            at += 1
        first, last, inside = start, end, False
        for place in range(at, len(placeholders)):
            place_start, place_end = placeholders[place]
            if place_start >= end:
                break
            inside = inside or (place_start <= start and end <= place_end)
            first, last = min(first, place_start), max(last, place_end)
        if not inside and start < end:
            yield first, last


def _occurrences(text: str, part: str) -> list[Span]:
    found: list[Span] = []
    at = text.find(part)
    while at >= 0:
        found.append((at, at + len(part)))
        at = text.find(part, at + len(part))
    return found


class _Walk:
    """One walk over one value, with what is left of its budgets."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._nodes = MAX_NODES
        self._chars = MAX_VALUE_CHARS
        self._path: set[int] = set()

    def visit(self, value: Any, depth: int) -> Any:
        if isinstance(value, str) and value.startswith("[left out") and len(value) < 64:
            return str.__str__(
                value
            )  # a mark of an earlier walk: free, so that a second walk cuts nothing more
        self._nodes -= 1
        if self._nodes < 0:
            return "[left out: too many values]"
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if isinstance(value, (int, float)):
            return self._number(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._text(bytes(value).decode("utf-8", "backslashreplace"))
        if not isinstance(value, (Mapping, list, tuple, Set)):
            return self._text(safe_text(value))
        if id(value) in self._path:
            return "[left out: contains itself]"
        if depth >= MAX_DEPTH:
            return "[left out: too deep]"
        self._path.add(id(value))
        try:
            return self._mapping(value, depth) if isinstance(value, Mapping) else self._items(value, depth)
        except Exception:
            return "[left out: cannot be read]"
        finally:
            self._path.discard(id(value))

    def _text(self, text: str) -> str:
        if self._chars <= 0:
            return "[left out: too long]"
        text = self._redactor.text(text, limit=max(self._chars, 1024))
        self._chars -= len(text)
        return text

    def _number(self, value: float) -> Any:
        if isinstance(value, int):
            if -1_000 < value < 1_000:
                return int(value)
            if value.bit_length() > 256:
                return f"[left out: a number of {value.bit_length()} bits]"
            text = int.__repr__(value)
        elif not math.isfinite(value):
            return float.__repr__(value)
        else:
            text = float.__repr__(value).removesuffix(".0")
        return value if self._redactor.text(text) == text else REDACTED

    def _mapping(self, mapping: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        redacted: dict[str, Any] = {}
        named = _named_sensitivity(mapping)
        for key, item in mapping.items():
            if self._nodes <= 0:
                redacted["[left out]"] = "too many values"
                break
            name = str.__str__(key) if isinstance(key, str) else safe_text(key)
            level = sensitivity(name)
            if level is Sensitivity.PLAIN and named is not None and name.lower() in _VALUE_KEYS:
                level = named
            shown = self._text(name)
            unique, number = shown, 2
            while unique in redacted:
                unique, number = f"{shown} ({number})", number + 1
            redacted[unique] = self._announced(item, level, depth)
        return redacted

    def _announced(self, item: Any, level: Sensitivity, depth: int) -> Any:
        """`item` behind a name of this sensitivity."""
        if level is Sensitivity.PLAIN or item is None or isinstance(item, bool):
            return self.visit(item, depth + 1)
        if isinstance(item, (str, int, float)):
            if isinstance(item, str):
                harmless = is_harmless(item.strip(), level)
            else:
                harmless = level is Sensitivity.COUNT
            shown = self.visit(item, depth + 1) if harmless else REDACTED
            return REDACTED if isinstance(shown, str) and not isinstance(item, str) else shown
        if level is Sensitivity.COUNT and isinstance(item, Mapping) and len(item) <= 64:
            # Such as "tokens": {"input": 12, "output": 40}: numbers stay, and nothing else.
            numbers = self.visit(item, depth + 1)
            if isinstance(numbers, dict) and not any(
                isinstance(v, (str, dict, list)) for v in numbers.values()
            ):
                return numbers
        return REDACTED

    def _items(self, items: Iterable[Any], depth: int) -> Any:
        pairs = _are_pairs(items)
        redacted: list[Any] = []
        in_pem = False
        for item in items:
            if self._nodes <= 0:
                redacted.append("[left out: too many values]")
                break
            if isinstance(item, str) and (in_pem or "-----BEGIN " in item):
                # A PEM block whose lines are the items: each alone looks like nothing.
                starts, ends = item.rfind("-----BEGIN "), item.rfind("-----END ")
                redacted.append(REDACTED if in_pem else self._text(item))
                in_pem = starts > ends or (in_pem and ends < 0)
            elif pairs:
                redacted.append(self._pair(item, depth))
            else:
                redacted.append(self.visit(item, depth + 1))
        return tuple(redacted) if isinstance(items, tuple) else redacted

    def _pair(self, pair: Sequence[Any], depth: int) -> Any:
        name, item = pair
        level = sensitivity(name if isinstance(name, str) else bytes(name).decode("utf-8", "replace"))
        shown = [self.visit(name, depth + 2), self._announced(item, level, depth + 1)]
        return tuple(shown) if isinstance(pair, tuple) else shown


def _named_sensitivity(mapping: Mapping[Any, Any]) -> Sensitivity | None:
    """For `{"name": "Cookie", "value": …}`: what the name announces."""
    for key in mapping:
        if isinstance(key, str) and key.lower() in _NAME_KEYS and isinstance(mapping[key], str):
            level = sensitivity(mapping[key])
            if level is not Sensitivity.PLAIN:
                return level
    return None


def _are_pairs(items: Iterable[Any]) -> bool:
    """Whether these are pairs of a name and a value, as some libraries keep headers."""
    return (
        isinstance(items, (list, tuple))
        and 0 < len(items) <= MAX_NODES
        and all(
            isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], (str, bytes))
            for item in items
        )
    )


def safe_text(value: Any) -> str:
    """`str(value)`, or a sentence that says why there is none. Never raises."""
    try:
        return str.__str__(str(value))
    except BaseException as error:  # a hostile __str__ may raise anything, SystemExit included
        return f"<unprintable {type(value).__name__}: {type(error).__name__}>"
