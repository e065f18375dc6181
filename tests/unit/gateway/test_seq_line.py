"""Frames in the order of their numbers, each once, however gateways overtake and repeat each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voicethere.roles.gateway.seq_line import MOST_AHEAD, SeqLine


def flat(ready: list[tuple[int, list[str]]]) -> list[tuple[int, str]]:
    return [(first + index, frame) for first, frames in ready for index, frame in enumerate(frames)]


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=12),
    st.data(),
)
def test_whatever_the_order_each_frame_is_given_out_once_in_order(
    sizes: list[int], data: st.DataObject
) -> None:
    batches: list[tuple[int, list[str]]] = []
    seq = 1
    for size in sizes:
        batches.append((seq, [str(number) for number in range(seq, seq + size)]))
        seq += size
    more = data.draw(st.lists(st.sampled_from(batches), max_size=6))
    line = SeqLine(0)
    out: list[tuple[int, str]] = []
    for first, frames in data.draw(st.permutations(batches + more)):
        out += flat(line.put(first, frames))
    assert out == [(number, str(number)) for number in range(1, seq)]
    assert not line.gap
    assert line.seq == seq - 1


def test_what_is_known_from_elsewhere_is_not_waited_for() -> None:
    line = SeqLine(0)
    assert line.put(5, ["5", "6"]) == []
    assert line.put(8, ["8"]) == []
    assert line.known(5) == [(6, ["6"])]
    assert line.put(3, ["3"]) == []
    assert line.put(7, ["7"]) == [(7, ["7"]), (8, ["8"])]


def test_a_gap_can_be_passed_over() -> None:
    line = SeqLine(0)
    assert not line.pass_over()
    line.put(3, ["3"])
    line.put(6, ["6", "7"])
    assert line.pass_over()
    assert (line.seq, line.gap) == (7, False)
    assert line.put(8, ["8"]) == [(8, ["8"])]


def test_only_so_much_waits() -> None:
    line = SeqLine(0)
    for seq in range(2, MOST_AHEAD + 3):
        line.put(seq, ["x"])
    assert line.crowded
