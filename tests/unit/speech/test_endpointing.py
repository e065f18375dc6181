"""Utterances found in audio, whatever its chunks, pauses and length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.adapters.speech.endpointing import Endpointer, SpeechEnded, SpeechStarted
from voicethere.testing.speech import LevelVoiceActivity, tone

FRAME = 512 / 16_000


def quiet(frames: int) -> bytes:
    return bytes(1024 * frames)


def speech(frames: int) -> bytes:
    return tone(FRAME, level=9000) * frames


def endpointer(**changes: int) -> Endpointer:
    # 32 ms a frame: 2 to start, 15 to end, 5 of pre-roll, 100 at most.
    settings = {"start_ms": 64, "end_silence_ms": 480, "pre_roll_ms": 160, "max_utterance_ms": 3200} | changes
    return Endpointer(LevelVoiceActivity(), **settings)


def test_one_phrase_is_one_utterance_with_its_pre_roll() -> None:
    events = endpointer().feed(quiet(20) + speech(10) + quiet(20))
    assert events[0] == SpeechStarted()
    (ended,) = events[1:]
    assert isinstance(ended, SpeechEnded)
    assert ended.pcm.startswith(quiet(5) + speech(10))
    assert ended.pcm == quiet(5) + speech(10) + quiet(7)  # 200 ms of the silence stay
    assert not ended.cut
    assert ended.seconds == pytest.approx(22 * FRAME)


def test_the_start_is_told_while_the_user_speaks() -> None:
    ears = endpointer()
    assert ears.feed(quiet(3) + speech(1)) == []
    assert ears.feed(speech(1)) == [SpeechStarted()]
    assert ears.speaking


def test_a_pause_inside_of_a_phrase_does_not_cut_it() -> None:
    events = endpointer().feed(speech(5) + quiet(14) + speech(5) + quiet(15))
    assert [type(event) for event in events] == [SpeechStarted, SpeechEnded]


def test_a_long_pause_makes_two_utterances() -> None:
    events = endpointer().feed(speech(5) + quiet(15) + speech(5) + quiet(15))
    assert [type(event) for event in events] == [SpeechStarted, SpeechEnded] * 2


def test_a_single_loud_frame_is_no_speech() -> None:
    assert endpointer().feed((quiet(5) + speech(1)) * 20) == []


def test_endless_speech_is_cut_and_no_sample_is_lost_or_repeated() -> None:
    ears = endpointer()
    events = ears.feed(speech(250)) + ears.flush()
    utterances = [event for event in events if isinstance(event, SpeechEnded)]
    assert [event.cut for event in utterances] == [True, True, False]
    assert b"".join(event.pcm for event in utterances) == speech(250)


def test_memory_is_bounded_in_silence_and_in_speech() -> None:
    ears = endpointer()
    for _ in range(50):
        ears.feed(quiet(20))
        assert ears.flush() == []
    longest = max(len(e.pcm) for e in ears.feed(speech(1000)) if isinstance(e, SpeechEnded))
    assert longest == 100 * 1024


def test_flushing_ends_what_is_under_way_and_forgets_the_rest() -> None:
    ears = endpointer()
    ears.feed(speech(4) + b"\1\2\3")
    (ended,) = ears.flush()
    assert ended == SpeechEnded(speech(4))
    assert not ears.speaking
    assert ears.flush() == []
    assert ears.feed(quiet(30)) == []


@given(cuts=st.lists(st.integers(1, 5000), min_size=1, max_size=40))
def test_chunk_sizes_do_not_matter(cuts: list[int]) -> None:
    audio = quiet(8) + speech(6) + quiet(20) + speech(3) + quiet(20)
    ears, events, position, turn = endpointer(), [], 0, 0
    while position < len(audio):
        size = cuts[turn % len(cuts)]
        events += ears.feed(audio[position : position + size])
        position, turn = position + size, turn + 1
    assert events == endpointer().feed(audio)
    assert len(events) == 4


@pytest.mark.parametrize(
    "wrong",
    [{"start_ms": 0}, {"end_silence_ms": 0}, {"pre_roll_ms": -1}, {"max_utterance_ms": 700}],
)
def test_durations_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        endpointer(**wrong)
