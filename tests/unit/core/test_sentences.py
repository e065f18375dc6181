"""Where text that is being written is cut into sentences: by what it says, not by how it came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.core.sentences import MAX_SENTENCE_CHARS, SentenceCutter

FRAGMENTS = [
    *" \n.!?…,;:\"')。！？」、-_",
    *(
        "a",
        "I",
        "B.",
        "Dr. ",
        "e.g. ",
        "1. ",
        "word ",
        "word, ",
        "Ende. ",
        "猫",
        "...",
        "x" * 70,
        "no end here " * 5,
    ),
]
fragments = st.sampled_from(FRAGMENTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
texts = (st.lists(fragments, max_size=10) | st.lists(fragments, min_size=40, max_size=120)).map("".join)


def cut(*pieces: str) -> list[str]:
    cutter = SentenceCutter()
    sentences = [sentence for piece in pieces for sentence in cutter.feed(piece)]
    return [*sentences, rest] if (rest := cutter.finish()) else sentences


@given(texts)
def test_nothing_is_lost_and_nothing_is_too_long(text: str) -> None:
    sentences = cut(text)
    assert "".join(sentences) == text
    assert all(0 < len(sentence) <= MAX_SENTENCE_CHARS for sentence in sentences)


@given(texts, st.data())
def test_the_pieces_in_which_it_came_make_no_difference(text: str, data: st.DataObject) -> None:
    whole = cut(text)
    assert cut(*text) == whole
    edges = data.draw(st.lists(st.integers(0, len(text)), max_size=10).map(sorted))
    pieces = [text[start:end] for start, end in zip([0, *edges], [*edges, len(text)], strict=True)]
    assert cut(*pieces) == whole


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Hello there. How are you?", ["Hello there.", " How are you?"]),
        ('"Stop!" he said. "Why?"\nSilence…  T', ['"Stop!"', " he said.", ' "Why?"', "\nSilence…", "  T"]),
        ("Really?! Yes.", ["Really?!", " Yes."]),
        ("It is 3.14, see voicethere.agent. Good.", ["It is 3.14, see voicethere.agent.", " Good."]),
        ("Dr. Who met J. R. Tolkien, i.e. the author. So did I. Yes.",
         ["Dr. Who met J. R. Tolkien, i.e. the author.", " So did I.", " Yes."]),
        ("1. Grind the beans. 2. Boil water.", ["1. Grind the beans.", " 2. Boil water."]),
        ("Coffee\n- espresso\n- latte\n\nTea", ["Coffee\n", "- espresso\n", "- latte\n", "\nTea"]),
        ("我是猫。你好！「真的吗？」是的", ["我是猫。", "你好！", "「真的吗？」", "是的"]),
        ("क्या हाल है? मैं ठीक हूँ। और आप", ["क्या हाल है?", " मैं ठीक हूँ।", " और आप"]),
        ("... \n --- \n Well.", ["... \n --- \n Well."]),
        ("", []),
    ],
)  # fmt: skip
def test_a_sentence_ends_where_one_would_pause(text: str, sentences: list[str]) -> None:
    assert cut(text) == sentences


def test_a_sentence_is_there_with_the_first_character_behind_it() -> None:
    cutter = SentenceCutter()
    assert cutter.feed("Hello there.") == []  # it may yet be a number, or an address
    assert cutter.feed(" ") == ["Hello there."]
    assert cutter.finish() == " "
    assert cutter.finish() == ""


def test_a_long_run_is_cut_behind_its_last_comma_or_at_a_space() -> None:
    assert cut("and so on, " * 30)[0] == ("and so on, " * 18).rstrip()
    assert cut("word " * 60)[0] == ("word " * 40).rstrip()
    assert cut("x" * 450) == ["x" * 200, "x" * 200, "x" * 50]
    assert cut("a, " + "word " * 60)[0] == "a, " + ("word " * 39).rstrip()  # a comma, but far too early


def test_a_flood_of_marks_costs_no_more_than_its_length() -> None:
    for text in ("." * 300_000, "a. " * 100_000, ".\n" * 150_000, "。" * 300_000, '."' * 150_000):
        assert "".join(cut(text)) == text
