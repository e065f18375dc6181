"""Hostile text made speakable, and cut into bounded segments."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.adapters.speech.silence import trim_silence
from voicethere.adapters.speech.spoken_text import clean_text, segments
from voicethere.testing.speech import tone


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("hello\0 wor\x01ld", "hello world"),
        ("a\n\n b\t c", "a b c"),
        ("\u202eabc\u200b\ufeff", "abc"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("<speak>1 < 2</speak>", "<speak>1 < 2</speak>"),
        ("naïve 你好 🎉", "naïve 你好 🎉"),
        ("\x1b[31mred", "[31mred"),
    ],
)
def test_cleaning(text: str, clean: str) -> None:
    assert clean_text(text) == clean


@given(st.text(max_size=400))
def test_clean_text_can_always_be_encoded_and_holds_no_control(text: str) -> None:
    clean = clean_text(text)
    clean.encode()
    assert clean.isprintable()


def test_sentences_stay_together_as_far_as_they_fit() -> None:
    assert list(segments("One. Two. Three is longer.", 10)) == ["One. Two.", "Three is", "longer."]


def test_a_long_sentence_is_cut_at_clauses_first() -> None:
    pieces = list(segments("first of all, the second; and a third", 15))
    assert pieces == ["first of all,", "the second;", "and a third"]


def test_a_word_without_end_is_cut_anyhow() -> None:
    assert list(segments("x" * 25, 10)) == ["x" * 10, "x" * 10, "x" * 5]


@given(st.text(max_size=600), st.integers(5, 60))
def test_no_segment_is_too_long_and_no_character_is_lost(text: str, limit: int) -> None:
    clean = clean_text(text)
    pieces = list(segments(clean, limit))
    assert all(0 < len(piece) <= limit for piece in pieces)
    assert "".join(pieces).replace(" ", "") == clean.replace(" ", "")


def test_silence_is_trimmed_from_both_ends_only() -> None:
    rate = 22_050
    gap = bytes(rate)
    pcm = gap + tone(0.2, sample_rate=rate) + gap + tone(0.2, sample_rate=rate) + gap
    trimmed = trim_silence(pcm, rate)
    assert len(trimmed) / 2 / rate == pytest.approx(0.9, abs=0.06)
    assert max(array("h", trimmed[:2000])) > 0


@pytest.mark.parametrize("pcm", [b"", bytes(2), bytes(50_000)])
def test_only_silence_is_nothing(pcm: bytes) -> None:
    assert trim_silence(pcm, 22_050) == b""
