"""What commands print is clean, whatever agents and clients put into names and messages."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from voicethere.cli import terminal
from voicethere.cli.failure import Failure


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本", "plain é 日本"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\tb\nc\r", "a\\tb\\nc\\r"),
        ("\x9b2J\x07\x7f\x00", "\\x9b2J\\x07\\x7f\\x00"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert terminal.safe_line(text) == shown


@given(st.text())
def test_no_text_at_all_gets_a_control_character_through(text: str) -> None:
    line = terminal.safe_line(text)
    assert all(character.isprintable() or character.isspace() or ord(character) >= 0xA0 for character in line)
    assert not set(line) & set("\n\r\t\x1b\x9b\x85\u2028")


def test_lines_may_stay_where_they_are_wanted() -> None:
    assert terminal.safe_lines("a\n\tb\x1b") == "a\n\tb\\x1b"


def test_json_stays_json_and_is_clean() -> None:
    value = {"message": 'a\x1b\x9b\u202e\n"é'}

    @click.command()
    def show() -> None:
        terminal.json_document(value)

    printed = CliRunner().invoke(show).stdout
    assert json.loads(printed) == value
    assert not set(printed) & set("\x1b\x9b\u202e")
    assert "é" in printed


def test_nothing_to_list_prints_nothing_into_a_pipe() -> None:
    @click.command()
    def show() -> None:
        terminal.rows(("a",), [], nothing="Nothing.")

    result = CliRunner().invoke(show)
    assert (result.stdout, result.stderr) == ("", "")


def test_a_failure_is_one_line_and_status_one() -> None:
    @click.command()
    def fail() -> None:
        raise Failure("bad\nname \x1b[2J")

    result = CliRunner().invoke(fail)
    assert result.exit_code == 1
    assert result.stderr == "voicethere: bad\\nname \\x1b[2J\n"
