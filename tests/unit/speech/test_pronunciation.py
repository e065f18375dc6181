"""Guesses for words that no dictionary lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.adapters.speech.pronunciation import guess

DICTIONARY = {"voice": "V OY S", "there": "DH EH R", "kettle": "K EH T AH L"}
VOWELS = {"AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"}
CONSONANTS = {*"BDFGKLMNPRSTVWYZ", "CH", "DH", "HH", "JH", "NG", "SH", "TH", "ZH"}
PHONES = VOWELS | CONSONANTS


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("voicethere", "V OY S DH EH R"),
        ("kettle's", "K EH T AH L Z"),
        ("tts", "T IY T IY EH S"),
        ("blick", "B L IH K"),
        ("zabble", "Z AE B AH L"),
        ("frobe", "F R OW B"),
        ("quixo", "K W IH K S OW"),
    ],
)
def test_guesses(word: str, phones: str) -> None:
    assert guess(word, DICTIONARY.get) == phones


@pytest.mark.parametrize("word", ["", "'", "дверь", "你好", "x" * 41, "<s>", "(2)"])
def test_no_guess_is_made_for_what_is_no_english_word(word: str) -> None:
    assert guess(word, DICTIONARY.get) is None


@given(
    st.text(alphabet="abcdefghijklmnopqrstuvwxyz'", min_size=1, max_size=40).filter(lambda w: w.strip("'"))
)
def test_every_latin_word_has_phones_of_the_acoustic_model(word: str) -> None:
    phones = guess(word, DICTIONARY.get)
    assert phones
    assert set(phones.split()) <= PHONES
