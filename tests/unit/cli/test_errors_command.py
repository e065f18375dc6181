"""`voicethere errors …`: the catalog for people, in a pipe, on a terminal, as JSON and as pages."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.unit.docs.named_commands import named_commands, problem_of
from voicethere.cli.errors_pages import pages
from voicethere.cli.errors_shown import rendered
from voicethere.cli.main import COMMANDS, cli
from voicethere.errors import CATALOG, SESSION_ERROR_CODES, CodeInfo, CrashKind
from voicethere.wire.session_api import FailureCode
from voicethere.wire.settings import SessionSettings

ROOT = Path(__file__).parents[3]
EVERY = pytest.mark.parametrize("info", CATALOG.values(), ids=SESSION_ERROR_CODES)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["errors", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def said_of(info: CodeInfo) -> list[str]:
    """Every sentence of the catalog about a code."""
    words = [info.message, info.when, info.cause, info.remedy, info.follows]
    for detail in info.details:
        words += [detail.meaning, *(meaning for _, meaning in detail.values)]
    return words


@EVERY
def test_explaining_tells_all_that_the_catalog_knows(info: CodeInfo) -> None:
    lines = dict(line.split("\t", 1) for line in run("explain", info.code.value).splitlines())
    assert lines["code"] == info.code.value
    assert lines["scope"] == info.scope.value
    assert lines["source"] == (info.source.value if info.source is not None else "-")
    assert lines["recoverable"].startswith("true" if info.recoverable else "false")
    assert info.note_on_recoverable in lines["recoverable"]
    assert set(said_of(info)) <= set(lines.values())


@EVERY
def test_a_terminal_shows_the_same_words(info: CodeInfo) -> None:
    shown = io.StringIO()
    Console(file=shown, width=100).print(rendered(info))
    text = re.sub(r"\s+", "", shown.getvalue())
    for words in said_of(info):
        assert all(re.sub(r"\s+", "", part) in text for part in words.replace("`", "").split(" ")), words


@EVERY
def test_json_has_the_fields(info: CodeInfo) -> None:
    found = json.loads(run("explain", info.code.value, "--json"))
    assert found["code"] == info.code.value
    assert found["recoverable"] is info.recoverable
    assert found["remedy"] == info.remedy
    assert list(found["details"]) == [detail.key for detail in info.details]


@pytest.mark.parametrize("typed", ["runner_internal", "Runner-Internal", " runner internal "])
def test_how_it_is_typed_does_not_matter(typed: str) -> None:
    assert run("explain", typed).startswith("code\tRUNNER_INTERNAL\n")


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("AGENT_HANDLER_FALED", "AGENT_HANDLER_FAILED"),
        ("idle", "SESSION_IDLE_TIMEOUT"),
        ("webrtc_timeout", "WEBRTC_CONNECT_TIMEOUT"),
        ("xyz", "voicethere errors list"),
        ("", "voicethere errors list"),
    ],
)
def test_an_unknown_code_names_the_near_ones(typed: str, near: str) -> None:
    result = CliRunner().invoke(cli, ["errors", "explain", typed])
    assert result.exit_code == 1
    assert near in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_the_list_has_every_code_in_order() -> None:
    rows = [line.split("\t") for line in run("list").splitlines()]
    assert [row[0] for row in rows] == list(SESSION_ERROR_CODES)
    assert {len(row) for row in rows} == {5}
    assert [entry["code"] for entry in json.loads(run("list", "--json"))["codes"]] == list(
        SESSION_ERROR_CODES
    )


def test_the_pages_of_the_docs_are_those_of_the_catalog(tmp_path: Path) -> None:
    """`make docs-errors` writes them again."""
    run("docs", "--out", str(tmp_path / "new"))
    written = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    committed = {path.name: path.read_text() for path in (ROOT / "docs" / "errors").iterdir()}
    assert written == pages()
    assert committed == written


def test_pages_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(cli, ["errors", "docs", "--out", str(tmp_path / "file" / "below")])
    assert result.exit_code == 1
    assert "cannot write to" in result.stderr


# ------------------------------------------------------------------ the words are true


def _values(code: str, key: str) -> set[str]:
    (detail,) = [detail for detail in CATALOG[code].details if detail.key == key]
    return {value for value, _ in detail.values}


def test_every_crash_kind_and_failure_code_is_explained() -> None:
    assert _values("AGENT_CHILD_CRASHED", "crash_kind") == {kind.value for kind in CrashKind}
    for code in ("PROVISIONING_FAILED", "PROVISIONING_TIMEOUT"):
        assert _values(code, "failure_code") == {failure.value for failure in FailureCode}


@EVERY
def test_the_commands_that_are_named_exist(info: CodeInfo) -> None:
    for words in said_of(info):
        for command in named_commands(words):
            assert problem_of(command) is None


def test_the_settings_that_are_named_exist() -> None:
    settings = set(SessionSettings.__struct_fields__)
    named = re.findall(r"idle_timeout_\w+|data_only_\w+", " ".join(said_of(CATALOG["SESSION_IDLE_TIMEOUT"])))
    assert set(named) <= settings
    assert len(set(named)) >= 4


@EVERY
def test_codes_that_are_named_are_codes(info: CodeInfo) -> None:
    prefixes = {code.split("_")[0] for code in SESSION_ERROR_CODES} - {"AGENT"}
    for words in said_of(info):
        for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+){1,}\b", words):
            if name.split("_")[0] in prefixes:
                assert name in {*SESSION_ERROR_CODES, *FailureCode}


def test_it_is_among_the_commands() -> None:
    assert "errors" in COMMANDS
