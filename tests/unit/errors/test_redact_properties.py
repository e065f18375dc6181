"""For all texts and values: redaction ends, and redacting twice is the same as once."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from voicethere.errors import Redactor

_LOADED = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *("password", "token", "=", ":", " ", "'", '"', "\\", "[", "]", "(", ")", "{", "}", ",", ";"),
                *(
                    "[redacted]",
                    "Bearer ",
                    "basic ",
                    "://",
                    "@",
                    "-----BEGIN A-----",
                    "-----END A-----",
                    "\n",
                ),
                *(
                    "4111 1111 1111 1111",
                    "eyJabcdefgh.",
                    "cookie: ",
                    "authorization: ",
                    "--secret ",
                    "%3D",
                    "<",
                ),
                *("sk-abcdefghijklmnop", "vth_abcdefghij", "hunter2hunter2", "…", "&", "?", "api key", ">"),
            ]
        ),
        st.text(max_size=6),
    ),
    max_size=24,
).map("".join)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _LOADED,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.one_of(_LOADED, st.sampled_from(["password", "name", "value", "tokens"])), inner, max_size=4
        )
    ),
    max_leaves=20,
)

REDACTOR = Redactor(["hunter2hunter2", "acted", "[redacted"])


@settings(max_examples=300, deadline=None)
@given(_LOADED)
def test_redacting_a_text_twice_is_the_same_as_once(text: str) -> None:
    once = REDACTOR.text(text)
    assert REDACTOR.text(once) == once


@settings(max_examples=100, deadline=None)
@given(_LOADED, st.integers(1, 4_000), st.integers(300, 3_000))
def test_redacting_a_long_text_twice_is_the_same_as_once(text: str, times: int, limit: int) -> None:
    once = REDACTOR.text((text * times)[:50_000], limit=limit)
    assert REDACTOR.text(once, limit=limit) == once


@settings(max_examples=120, deadline=None)
@given(_JSON)
def test_redacting_a_value_twice_is_the_same_as_once(value: Any) -> None:
    once = REDACTOR.value(value)
    assert repr(REDACTOR.value(once)) == repr(once)


@settings(max_examples=120, deadline=None)
@given(st.text("abcdefghijklmnop .,:;/()\n", max_size=200))
def test_a_text_without_secrets_stays(text: str) -> None:
    redacted = Redactor().text(text)
    assert redacted == text or "://" in text or "pin" in text
