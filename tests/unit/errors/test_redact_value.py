"""Redaction of nested values: names, values, cycles, size."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest

from voicethere.errors import REDACTED, Redactor
from voicethere.errors.redact import MAX_NODES

CASES: list[tuple[Any, Any]] = [
    ({"password": "x"}, {"password": REDACTED}),
    ({"user": {"Password": "x", "name": "Bob"}}, {"user": {"Password": REDACTED, "name": "Bob"}}),
    ({"apiKey": 12345, "pin": 1234}, {"apiKey": REDACTED, "pin": REDACTED}),
    ({"client_secret": {"a": 1}, "cookies": ["a"]}, {"client_secret": REDACTED, "cookies": REDACTED}),
    ({"password": None, "token": "", "secret": False}, {"password": None, "token": "", "secret": False}),
    ({"tokens_used": 5, "max_tokens": 7, "tokens": 9}, {"tokens_used": 5, "max_tokens": 7, "tokens": 9}),
    ({"tokens": {"input": 5, "output": 2}}, {"tokens": {"input": 5, "output": 2}}),
    ({"tokens": {"input": "a"}}, {"tokens": REDACTED}),
    ({"max_tokens": "abc"}, {"max_tokens": REDACTED}),
    ({"author": "Bob", "keyboard": "us"}, {"author": "Bob", "keyboard": "us"}),
    (["a", ("Bearer abc", 1)], ["a", (f"Bearer {REDACTED}", 1)]),
    ({"Bearer abc": 1, "Bearer def": 2}, {f"Bearer {REDACTED}": 1, f"Bearer {REDACTED} (2)": 2}),
    ({"n": 4111111111111111}, {"n": REDACTED}),
    ({"n": 4111111111111111.0}, {"n": REDACTED}),
    ({"n": 1718798400000, "m": 0.25, "k": -7}, {"n": 1718798400000, "m": 0.25, "k": -7}),
    ({"n": 31337007}, {"n": REDACTED}),
    ({"raw": b"password=x y"}, {"raw": f"password={REDACTED} y"}),
    ({"name": "Cookie", "value": "a=b"}, {"name": "Cookie", "value": REDACTED}),
    ({"name": "tier", "value": "pro"}, {"name": "tier", "value": "pro"}),
    ([["cookie", "a=b"], ["host", "h"]], [["cookie", REDACTED], ["host", "h"]]),
    ({"fields": ["password", "email"]}, {"fields": ["password", "email"]}),
    (
        ["-----BEGIN PRIVATE KEY-----", "MIIEow", "abc", "-----END PRIVATE KEY-----", "next"],
        [REDACTED, REDACTED, REDACTED, REDACTED, "next"],
    ),
    ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
    ({"when": datetime.date(2026, 6, 19)}, {"when": "2026-06-19"}),
    ({"x": math.inf}, {"x": "inf"}),
    (None, None),
    (True, True),
    ("see 31337007", f"see {REDACTED}"),
]


@pytest.mark.parametrize(("value", "expected"), CASES)
def test_values(value: Any, expected: Any) -> None:
    redactor = Redactor(["31337007"])
    assert redactor.value(value) == expected
    assert redactor.value(expected) == expected


def test_sets_become_lists() -> None:
    assert Redactor().value({"a": {"x"}}) == {"a": ["x"]}


def test_cycles_and_depth_are_cut_visibly() -> None:
    loop: dict[str, Any] = {"name": "x"}
    loop["self"] = loop
    assert Redactor().value(loop) == {"name": "x", "self": "[left out: contains itself]"}
    deep: Any = "ghp_abcdefghijkl"
    for _ in range(5_000):
        deep = {"a": deep}
    shown = repr(Redactor().value(deep))
    assert "too deep" in shown
    assert "ghp_" not in shown


def test_a_value_that_grows_without_end_is_cut_visibly() -> None:
    wide: Any = ["x"] * 10
    for _ in range(12):
        wide = [wide] * 10
    shown = Redactor().value({"wide": wide, "flat": ["y"] * 100_000})
    assert "too many values" in repr(shown)
    assert repr(shown).count("'x'") <= MAX_NODES
    assert Redactor().value(shown) == shown


def test_nothing_that_a_value_does_can_raise() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise SystemExit(3)

    class HostileDict(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("no")

    class Liar:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("no")

    shown = Redactor().value({"a": Hostile(), "b": HostileDict(x=1), "c": "ok", "d": 10**5000, "e": "\ud800"})
    assert shown["a"] == "<unprintable Hostile: SystemExit>"
    assert shown["b"] == "[left out: cannot be read]"
    assert shown["c"] == "ok"
    assert "bits" in shown["d"]
    assert "left out" in repr(Redactor().value(Liar()))
