"""Cutting a hostile byte stream into bounded lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.adapters.sandbox.lines import MAX_LINE_BYTES, LineAssembler, TokenBucket


def lines_of(*chunks: bytes) -> list[str]:
    assembler = LineAssembler()
    lines = []
    for chunk in chunks:
        assembler.put(chunk)
        while (line := assembler.next_line()) is not None:
            lines.append(line)
    last = assembler.finish()
    return lines if last is None else [*lines, last]


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_chunks_make_no_difference(chunks: list[bytes]) -> None:
    assert lines_of(*chunks) == lines_of(b"".join(chunks))


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])), max_size=8))
def test_lines_come_back(lines: list[str]) -> None:
    assert lines_of("".join(f"{line}\n" for line in lines).encode()) == lines


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n\n", ["", ""]),
        (b"no end", ["no end"]),
        (b"dos\r\nunix\n", ["dos", "unix"]),
        (b"\xff\xfe\n", ["��"]),
        ("ü".encode()[:1], ["�"]),
    ],
)
def test_odd_data(data: bytes, lines: list[str]) -> None:
    assert lines_of(data) == lines


def test_an_overlong_line_is_cut_and_says_so() -> None:
    (line,) = lines_of(b"x" * 20_000, b"x" * 5, b"\n")
    assert line == "x" * MAX_LINE_BYTES + f" … {20_005 - MAX_LINE_BYTES} bytes of this line dropped"
    assert lines_of(b"x" * MAX_LINE_BYTES + b"\nnext\n") == ["x" * MAX_LINE_BYTES, "next"]


def test_a_cut_does_not_leave_half_a_character() -> None:
    line = lines_of(b"x" + "ü".encode() * MAX_LINE_BYTES)[0]
    assert "�" not in line


def test_whole_lines_are_skipped_and_the_rest_goes_on() -> None:
    assembler = LineAssembler()
    assembler.put(b"one\ntwo\nthree\nfo")
    assert assembler.next_line() == "one"
    assert assembler.skip_lines() == len(b"two\nthree\n")
    assert assembler.next_line() is None
    assembler.put(b"ur\n")
    assert assembler.next_line() == "four"
    assert assembler.skip_lines() == 0


def test_a_bucket_fills_with_time_up_to_its_brim() -> None:
    bucket = TokenBucket(burst=100, per_second=10, now=0.0)
    bucket.spend(120)
    assert bucket.refill(1.0) == -10
    assert bucket.refill(3.0) == 10
    assert bucket.refill(1000.0) == 100
