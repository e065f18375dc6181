"""Audio brought to the level and the room that an acoustic model knows."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.adapters.speech.conditioning import Conditioner
from voicethere.testing.speech import tone


@pytest.mark.parametrize("level", [600, 8000, 32_000])
def test_every_level_becomes_the_same(level: int) -> None:
    samples = array("h", Conditioner().condition(tone(0.5, level=level)))
    assert max(samples) == pytest.approx(8000, rel=0.05)


def test_silence_becomes_the_noise_of_a_quiet_room() -> None:
    samples = array("h", Conditioner().condition(bytes(64_000)))
    assert len(set(samples)) > 50
    assert 100 < max(samples) < 400


def test_a_hiss_is_not_raised_to_a_voice() -> None:
    assert max(array("h", Conditioner().condition(tone(0.5, level=20)))) < 700


@given(st.binary(max_size=400).filter(lambda data: len(data) % 2 == 0))
def test_any_audio_keeps_its_length_and_is_always_treated_alike(pcm: bytes) -> None:
    conditioner = Conditioner()
    first = conditioner.condition(pcm)
    assert len(first) == len(pcm)
    assert conditioner.condition(pcm) == first == Conditioner().condition(pcm)
