"""Secrets planted anywhere in a text, a value or an error: nothing of them is left anywhere."""

from __future__ import annotations

import json
import random
import string
import urllib.parse
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from voicethere.errors import (
    Bounds,
    Cause,
    Crash,
    CrashKind,
    HandlerFailure,
    Redactor,
    SessionErrorCode,
    fit_envelope,
    make_record,
)

_ALNUM = string.ascii_letters + string.digits
_DIFFICULT = _ALNUM + "!#$%&*+,-./:;<=>?@[]^_{|}~'\"\\() é"


class Planted(msgspec.Struct, frozen=True):
    """A secret, the text that holds it, and the project's secret values that it needs to be known by."""

    secret: str
    written: str
    own: tuple[str, ...] = ()


def _drawn(alphabet: str, low: int, high: int) -> st.SearchStrategy[str]:
    # Drawn by a seed: hypothesis would else try words from our own source, which a record is full of.
    return st.tuples(st.integers(0, 2**64), st.integers(low, high)).map(
        lambda drawn: "".join(random.Random(drawn[0]).choices(alphabet, k=drawn[1]))
    )


def _alnum(low: int, high: int) -> st.SearchStrategy[str]:
    # What stands in front keeps a secret from being a number or a word of the harmless list.
    return _drawn(_ALNUM, low, high).map(lambda text: "Zq7" + text)


def _shaped(prefix: str, low: int = 20, high: int = 60) -> st.SearchStrategy[Planted]:
    return _alnum(low, high).map(lambda body: Planted(body, f"{prefix}{body}"))


_NAMES = st.sampled_from(
    [
        "password",
        "api_key",
        "clientSecret",
        "X-Auth-Token",
        "DB_PASS",
        "access_token",
        "private_key",
        "session_cookie",
    ]
)

_KNOWN_KEYS = st.sampled_from(
    [
        "vth_",
        "vthu_",
        "vthc_",
        "sk-",
        "sk-proj-",
        "ghp_",
        "github_pat_",
        "xoxb-",
        "AIza",
        "glpat-",
        "sk_live_",
    ]
).flatmap(_shaped)

_JWTS = st.tuples(_alnum(8, 80), _alnum(20, 60)).map(
    lambda parts: Planted(parts[1], f"eyJhbGciOiJIUzI1NiJ9.eyJ{parts[0]}.{parts[1]}")
)

_BEARERS = st.tuples(
    st.sampled_from(["Authorization: Bearer ", "bearer ", "Bearer ", "authorization=Bearer "]), _alnum(5, 60)
).map(lambda parts: Planted(parts[1], parts[0] + parts[1]))

_PAIRS = st.tuples(_NAMES, st.sampled_from(["=", ": ", " = ", ":"]), _alnum(3, 40)).map(
    lambda parts: Planted(parts[2], "".join(parts))
)

_ANY_PASSWORD = _drawn(_DIFFICULT, 6, 40).map(lambda text: "Zq7" + text + "Zq7")

_JSON_PAIRS = st.tuples(_NAMES, _ANY_PASSWORD).map(
    lambda parts: Planted(parts[1], json.dumps({parts[0]: parts[1], "n": 1}, ensure_ascii=False))
)
_ESCAPED_JSON_PAIRS = _JSON_PAIRS.map(lambda p: Planted(p.secret, json.dumps(p.written, ensure_ascii=False)))
_REPR_PAIRS = st.tuples(_NAMES, _ANY_PASSWORD).map(
    lambda parts: Planted(parts[1], repr({parts[0]: parts[1]}))
)

_QUERIES = st.tuples(_NAMES, _ANY_PASSWORD).map(
    lambda parts: Planted(
        urllib.parse.quote(parts[1], safe=""),
        f"https://example.com/x?a=1&{parts[0]}={urllib.parse.quote(parts[1], safe='')}&b=2",
    )
)
_URLS = st.tuples(st.sampled_from(["postgres", "redis", "https", "amqp"]), _alnum(4, 40)).map(
    lambda parts: Planted(parts[1], f"{parts[0]}://bob:{parts[1]}@example.com:99/x")
)
_COOKIES = st.tuples(st.sampled_from(["Cookie", "Set-Cookie"]), _alnum(4, 40), _alnum(4, 40)).map(
    lambda parts: Planted(parts[2], f"{parts[0]}: a={parts[1]}; sid={parts[2]}")
)
_PEMS = st.lists(_alnum(61, 61), min_size=1, max_size=40).map(
    lambda lines: Planted(
        lines[-1], "-----BEGIN PRIVATE KEY-----\n" + "\n".join(lines) + "\n-----END PRIVATE KEY-----\n"
    )
)
_CARDS = st.sampled_from(
    ["4111111111111111", "5500005555555559", "378282246310005", "6011111111111117", "3530111333300000"]
).map(lambda digits: Planted(digits, f"card {digits} "))

_OWN = _ANY_PASSWORD.flatmap(
    lambda secret: st.sampled_from(
        [secret, urllib.parse.quote(secret, safe=""), json.dumps(secret)[1:-1], f"x{secret}y", f"u={secret};"]
    ).map(lambda written: Planted(secret, written, (secret,)))
)

planted = st.one_of(
    *(_KNOWN_KEYS, _JWTS, _BEARERS, _PAIRS, _JSON_PAIRS, _ESCAPED_JSON_PAIRS, _REPR_PAIRS, _QUERIES, _URLS),
    *(_COOKIES, _PEMS, _CARDS, _OWN),
)
"""Any secret that must be found wherever it stands."""

_WORDS = [
    "line",
    "of",
    "text,",
    "at",
    "(File",
    '"agent.py",',
    "in",
    "f\n",
    "12",
    "é",
    "😀",
    "{a:",
    "b}",
    "\n    ",
]

filler = st.integers(0, 2**32).flatmap(
    lambda seed: st.integers(0, 1_500).map(lambda words: _prose(seed, words))
)
"""Text without secrets, up to some 7,000 characters."""


def _prose(seed: int, words: int) -> str:
    parts = []
    for _ in range(words):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        parts.append(_WORDS[(seed >> 33) % len(_WORDS)])
    return " ".join(parts) + " "


def nested(text: str) -> st.SearchStrategy[Any]:
    """`text` somewhere inside a JSON value of objects and arrays."""
    names = st.sampled_from(["a", "userId", "note", "items", "x y"])
    return st.recursive(
        st.just(text),
        lambda inner: st.one_of(
            st.tuples(names, inner).map(lambda pair: {pair[0]: pair[1], "tier": "pro"}),
            inner.map(lambda item: ["a", item, 7]),
        ),
        max_leaves=4,
    )


def remains(planted_secret: Planted, shown: str) -> bool:
    """Whether the secret, or a telling part of it, is still to be seen in `shown`."""
    secret = planted_secret.secret
    size = min(len(secret), 12)
    return any(secret[at : at + size] in shown for at in range(len(secret) - size + 1))


@settings(max_examples=200, deadline=None)
@given(planted, filler, filler)
def test_nothing_of_a_planted_secret_is_left(secret: Planted, before: str, after: str) -> None:
    shown = Redactor(secret.own).text(f"{before} {secret.written} {after}")
    assert not remains(secret, shown)
    assert "[redacted]" in shown


@settings(max_examples=200, deadline=None)
@given(planted, st.integers(0, 40_000), st.integers(0, 40_000), st.integers(300, 4_000))
def test_nothing_is_left_across_a_cut(secret: Planted, before: int, after: int, limit: int) -> None:
    text = "word " * (before // 5) + f" {secret.written} " + "word " * (after // 5)
    assert not remains(secret, Redactor(secret.own).text(text, limit=limit))


@settings(max_examples=150, deadline=None)
@given(st.data(), planted)
def test_nothing_is_left_in_a_value(data: st.DataObject, secret: Planted) -> None:
    value = data.draw(nested(f"see {secret.written} there"))
    shown = Redactor(secret.own).value({"customer": value, f"key {secret.written} ": 1})
    assert not remains(secret, repr(shown))


def _causes(secret: Planted, before: str, after: str) -> st.SearchStrategy[Cause]:
    words = f"ValueError: {before} {secret.written} {after}"
    stack = f"Traceback (most recent call last):\n{after} {secret.written} {before}\n{words}"
    lines = tuple(f"{before[:200]} {secret.written}".split("\n"))
    raised = RuntimeError(words)
    raised.__cause__ = KeyError(secret.written)
    return st.sampled_from(
        [
            words,
            raised,
            HandlerFailure(hook="on_session_start", message=words, stack=stack, last_log_lines=lines),
            Crash(kind=CrashKind.LOAD_FAILURE, message=words, stack=stack),
            Crash(kind=CrashKind.SIGNAL, message=secret.written, signal=9, last_log_lines=lines),
        ]
    )


@settings(max_examples=150, deadline=None)
@given(st.data(), planted, filler, filler, st.booleans())
def test_nothing_is_left_in_a_record_or_its_envelope(
    data: st.DataObject, secret: Planted, before: str, after: str, tight: bool
) -> None:
    bounds = (
        Bounds(message_chars=200, stack_bytes=700, context_bytes=600, details_bytes=900)
        if tight
        else Bounds()
    )
    record = make_record(
        data.draw(_causes(secret, before, after)),
        code=data.draw(st.sampled_from(SessionErrorCode)),
        error_id="e1",
        session_id="s1",
        project_id="p1",
        build_id="b1",
        occurred_at=1_781_870_400.0,
        redactor=Redactor(secret.own),
        bounds=bounds,
        error_message=f"Sorry, {secret.written}",
        customer_context={"userId": "u1", "deep": data.draw(nested(f"{before} {secret.written} {after}"))},
        details={"note": data.draw(nested(secret.written)), f"k {secret.written} ": 1},
    )
    assert not remains(secret, repr(record))
    stored = msgspec.json.encode(record)
    assert not remains(secret, stored.decode())
    envelope = fit_envelope(record.envelope(), data.draw(st.sampled_from([None, 60_000, 4_000, 900])))
    assert not remains(secret, msgspec.json.encode(envelope).decode())
    assert not remains(secret, repr(msgspec.json.decode(stored)))


def test_a_text_that_was_quoted_twice() -> None:
    secret = 'Zq7m[/yVQ9;ic@P/aQ+v"|ccZ"KuOcvPVwZq7'
    written = msgspec.json.encode({"password": secret, "n": 1}).decode()
    for text in (written, repr(written), repr(repr(written)), repr(KeyError(written))):
        shown = Redactor().text(text)
        assert "ccZ" not in shown
        assert "Kuoc" not in shown.lower()
