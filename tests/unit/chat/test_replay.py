"""The order in which events that came before the snapshot are replayed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from voicethere.core.chat.replay import ReplayBuffer
from voicethere.wire.sem import SemEvent


def numbered(seq: float | None, id: str = "x") -> SemEvent:
    return SemEvent(type="x", id=id, seq=UNSET if seq is None else seq)


@pytest.mark.states("sem-chat/connect/replay-order", "sem-chat/connect/replay-once")
def test_events_are_replayed_by_seq_those_without_first() -> None:
    """sem-chat: "buffered, then replayed in `seq` order, each `seq` once (frames without one first)"."""
    buffer = ReplayBuffer()
    for seq, id in [(7, "a"), (None, "b"), (3, "c"), (7, "d"), (None, "e"), (5.5, "f"), (3.0, "g")]:
        buffer.add(numbered(seq, id))
    assert len(buffer) == 7
    assert [event.id for event in buffer.drain()] == ["b", "e", "c", "f", "a"]
    assert (len(buffer), buffer.drain()) == (0, [])


@given(st.lists(st.none() | st.integers(-3, 6) | st.sampled_from([0.5, 2.0, 2**70]), max_size=30))
def test_any_order_of_arrival_gives_the_same_order_of_replay(seqs: list[float | None]) -> None:
    buffer = ReplayBuffer()
    for index, seq in enumerate(seqs):
        buffer.add(numbered(seq, str(index)))
    replayed = buffer.drain()
    without = [str(index) for index, seq in enumerate(seqs) if seq is None]
    assert [event.id for event in replayed[: len(without)]] == without
    assert [event.seq for event in replayed[len(without) :]] == sorted(
        {seq for seq in seqs if seq is not None}
    )


def test_a_buffer_is_full_by_events_or_by_characters_and_loses_nothing() -> None:
    buffer = ReplayBuffer(max_events=3, max_chars=100)
    buffer.add(numbered(1), 99)
    assert not buffer.is_full
    buffer.add(numbered(2), 1)
    assert buffer.is_full
    assert len(buffer.drain()) == 2
    assert not buffer.is_full
    for seq in range(4):
        assert buffer.is_full is (seq == 3)
        buffer.add(numbered(seq))
    assert len(buffer.drain()) == 4
