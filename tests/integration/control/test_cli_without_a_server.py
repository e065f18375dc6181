"""The commands that need no server: `agent verify` in the real sandbox, and `schema`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from voicethere.cli.main import cli

GOOD = """\
from voicethere.agent import define_agent, speak

async def on_user_speech_final(ctx):
    speak(ctx.session_id, ctx.text)

define_agent(on_user_speech_final=on_user_speech_final, commands=["hello", "please crash now"])
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tmp_path / "agent.py"


@pytest.mark.parametrize("command", [("agent", "verify"), ("build", "validate")])
def test_a_good_bundle_is_loaded_and_described(bundle: Path, command: tuple[str, str]) -> None:
    bundle.write_text(GOOD)
    result = run(*command, str(bundle))
    assert result.exit_code == 0, result.output
    described = dict(line.split("\t") for line in result.stdout.splitlines())
    assert described["hooks"] == "on_user_speech_final"
    assert described["commands"] == "hello, please crash now"
    assert "Remark" not in result.output
    report = json.loads(run(*command, str(bundle), "--json").stdout)
    assert (report["ok"], report["hooks"], report["problem"]) == (True, ["on_user_speech_final"], None)


@pytest.mark.parametrize("command", [("agent", "verify"), ("build", "validate")])
def test_commands_that_are_never_recognized_are_a_remark_and_no_failure(
    bundle: Path, command: tuple[str, str]
) -> None:
    bundle.write_text(GOOD.replace('"hello"', '"hello", "открой дверь"'))
    remark = "the command 'открой дверь' is never recognized: no pronunciation is known for открой, дверь"
    result = run(*command, str(bundle))
    assert result.exit_code == 0, result.output
    assert f"Remark: {remark}." in result.stderr.splitlines()
    report = json.loads(run(*command, str(bundle), "--json").stdout)
    assert (report["ok"], report["remarks"]) == (True, [remark])


def test_without_the_recognizer_there_is_no_remark(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.write_text(GOOD.replace('"hello"', '"открой дверь"'))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pocketsphinx" else find(name)
    )
    result = run("agent", "verify", str(bundle))
    assert (result.exit_code, "Remark" in result.output) == (0, False)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nowhere\n", "No module named 'nowhere'"),
        ("def broken(:\n", "SyntaxError"),
        ("x = 1\n", "define_agent"),
        ("from voicethere.agent import define_agent\ndefine_agent(on_nothing=print)\n", "on_nothing"),
        ("raise RuntimeError('\\x1b[31mred')\n", "\\x1b[31mred"),
        ("\0", "NUL"),
        ("", "empty"),
    ],
)
def test_a_bad_bundle_is_refused_with_the_reason(bundle: Path, source: str, words: str) -> None:
    bundle.write_text(source)
    result = run("agent", "verify", str(bundle))
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert words in result.stderr.splitlines()[-1]
    assert "\x1b" not in result.output
    assert result.stdout == ""
    as_json = run("agent", "verify", str(bundle), "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["ok"]) == (1, False)


def test_a_bundle_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot read" in run("agent", "verify", str(tmp_path / "missing.py")).stderr
    assert run("agent", "verify").exit_code == 2


def test_the_schema_is_printed_or_written(tmp_path: Path) -> None:
    printed = json.loads(run("schema").stdout)
    assert "session-api" in printed
    assert run("schema", "--out", str(tmp_path / "schemas")).exit_code == 0
    written = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "schemas").glob("*.json")}
    assert written == printed
    (tmp_path / "file").write_text("")
    refused = run("schema", "--out", str(tmp_path / "file" / "below"))
    assert refused.exit_code == 1
    assert "cannot write" in refused.stderr
