"""Where `voicethere chat` goes, with which key; and what it refuses before it goes anywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from voicethere.cli.chat.command import chat
from voicethere.cli.chat.target import chat_target, new_conversation_id
from voicethere.cli.failure import Failure


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own is found."""
    monkeypatch.setenv("VOICETHERE_CREDENTIALS_PATH", str(tmp_path / "credentials.json"))
    monkeypatch.setenv("VOICETHERE_PROJECT_CONFIG", str(tmp_path / "config.json"))
    monkeypatch.delenv("VOICETHERE_API_KEY", raising=False)
    monkeypatch.delenv("VOICETHERE_API_BASE", raising=False)


def _log_in(tmp_path: Path, key: str, base: str = "https://host.example/api/v1") -> None:
    (tmp_path / "credentials.json").write_text(json.dumps({"api_base": base, "api_key": key}))


def test_a_client_key_is_in_the_address_and_in_no_header(tmp_path: Path) -> None:
    _log_in(tmp_path, "vthc_abc")
    target = chat_target(None, None, None)
    assert (target.base_url, target.headers) == ("https://host.example/c/vthc_abc", {})
    assert chat_target(None, None, "vthc_other").base_url == "https://host.example/c/vthc_other"


def test_another_key_is_in_the_header_and_the_project_in_the_address(tmp_path: Path) -> None:
    _log_in(tmp_path, "vth_secret")
    with pytest.raises(Failure, match="no active project"):
        chat_target(None, None, None)
    (tmp_path / "config.json").write_text(json.dumps({"project_id": "p-1"}))
    target = chat_target(None, None, None)
    assert target.base_url == "https://host.example/c/p-1"
    assert target.headers == {"authorization": "Bearer vth_secret"}


def test_the_stored_key_goes_to_no_address_of_the_command_line(tmp_path: Path) -> None:
    _log_in(tmp_path, "vth_secret")
    assert chat_target("https://elsewhere.example/c/x/", None, None).headers == {}
    given = chat_target("https://elsewhere.example/c/x", None, "vth_given")
    assert given.base_url == "https://elsewhere.example/c/x"
    assert given.headers == {"authorization": "Bearer vth_given"}


def test_without_a_key_it_says_where_one_comes_from() -> None:
    with pytest.raises(Failure, match="--key"):
        chat_target(None, None, None)
    with pytest.raises(Failure, match="characters"):
        chat_target(None, None, "vthc_\x1b[31m")


def test_ids_of_new_conversations_have_128_random_bits() -> None:
    one, other = new_conversation_id(), new_conversation_id()
    assert one != other
    assert len(bytes.fromhex(one)) == 16


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--json-events is for scripts"),
        (("c" * 201, "--json-events"), "1 to 200 printable"),
        (("a\x1bb", "--json-events"), "printable"),
        (("--json-events", "--send", " "), "not blank"),
        (("conv", "--issued", "--json-events"), "leave CONV_ID out"),
    ],
)
def test_wrong_usage_is_refused_with_words(arguments: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(chat, [*arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_an_address_that_is_none_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(chat, ["--json-events", "--base-url", "ftp://host/c/x"])
    assert result.exit_code == 1
    assert "base_url must be an http or https address" in result.output
    assert "Traceback" not in result.output


def test_scripts_do_not_wait_for_a_screen_that_they_do_not_see() -> None:
    import subprocess

    code = (
        "import sys, voicethere.cli.chat.command, voicethere.cli.chat.json_events; "
        "sys.exit('textual' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
