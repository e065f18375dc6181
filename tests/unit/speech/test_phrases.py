"""Commands as people write them become words as a dictionary lists them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.adapters.speech.phrases import MAX_PHRASE_WORDS, words_of


@pytest.mark.parametrize(
    ("phrase", "words"),
    [
        ("Turn on the lights!", "turn on the lights"),
        ("  WHAT'S   up?  ", "what's up"),
        ("What\u2019s up", "what's up"),
        ("the dogs' bowl", "the dogs bowl"),
        ("naïve café", "naive cafe"),
        ("check-in", "check in"),
        ("salt & pepper", "salt and pepper"),
        ("lamp #2", "lamp number two"),
        ("set it to 50%", "set it to fifty percent"),
        ("room 0", "room zero"),
        ("room 007", "room zero zero seven"),
        ("call 5551234", "call five five five one two three four"),
        ("1,250 steps", "one thousand two hundred fifty steps"),
        ("version 3.14", "version three point one four"),
        ("the 1st, 3rd and 20th", "the first third and twentieth"),
        ("the 42nd", "the forty second"),
        ("channel 19", "channel nineteen"),
        ("100000 miles", "one hundred thousand miles"),
        ("открой дверь", "открой дверь"),
        ("</s> <sil> #JSGF;", "s sil number jsgf"),
        ("a | b ; public <x> = y {}", "a b public x equals y"),
        ("!?", ""),
        ("", ""),
    ],
)
def test_words(phrase: str, words: str) -> None:
    assert words_of(phrase) == tuple(words.split())


def test_a_phrase_that_is_too_long_has_no_words() -> None:
    assert words_of("x" * 201) == ()
    assert len(words_of("go " * MAX_PHRASE_WORDS)) == MAX_PHRASE_WORDS
    assert words_of("go " * (MAX_PHRASE_WORDS + 1)) == ()


@given(st.text(max_size=220))
def test_whatever_the_text_words_are_letters_and_inner_apostrophes(text: str) -> None:
    words = words_of(text)
    assert len(words) <= MAX_PHRASE_WORDS
    for word in words:
        assert word
        assert all(char.isalpha() or char == "'" for char in word)
        assert not word.startswith("'")
        assert not word.endswith("'")
