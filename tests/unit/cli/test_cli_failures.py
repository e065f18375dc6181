"""Servers that are away or are none, and files that are broken: one clear line each, never a stack trace."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

from voicethere.cli import config
from voicethere.cli.failure import Failure
from voicethere.cli.main import COMMANDS, cli
from voicethere.cli.setting_commands import parse_value


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("VOICETHERE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


def failed(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.count("\n") == 1
    return result.stderr


class _Answers(BaseHTTPRequestHandler):
    status: ClassVar[int] = 200
    content_type: ClassVar[str] = "text/html"
    body: ClassVar[bytes] = b"<html>hello</html>"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("content-type", self.content_type)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def foreign_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Answers]]:
    answers = type("Answers", (_Answers,), {})
    server = HTTPServer(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("VOICETHERE_API_BASE", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("VOICETHERE_API_KEY", "vth_key")
    yield answers
    server.shutdown()
    thread.join()
    server.server_close()


def test_without_a_key_it_says_how_to_get_one() -> None:
    assert "voicethere login" in failed("projects", "list")


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:  # it does not listen, and nobody else can on its port
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        monkeypatch.setenv("VOICETHERE_API_BASE", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("VOICETHERE_API_KEY", "vth_key")
        assert f"cannot reach http://127.0.0.1:{port}" in failed("projects", "list")


@pytest.mark.parametrize(
    "base", ["example.com", "ftp://example.com", "http://", "http://[", "http://bad host/", "http://a:99999"]
)
def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    monkeypatch.setenv("VOICETHERE_API_BASE", base)
    monkeypatch.setenv("VOICETHERE_API_KEY", "vth_key")
    failed("projects", "list")


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "text/html", b"<html>hello</html>"),
        (404, "text/html", b"<html>no</html>"),
        (302, "text/html", b""),
        (200, "application/json", b'{"projects": 5}'),
        (200, "application/json", b"\xff\xfe"),
        (200, "application/json", b"[" * 100_000),
        (500, "application/json", b'{"error": "no"}'),
    ],
)
def test_a_server_that_is_another(
    foreign_server: type[_Answers], status: int, content_type: str, body: bytes
) -> None:
    foreign_server.status, foreign_server.content_type, foreign_server.body = status, content_type, body
    assert "is the address right?" in failed("projects", "list")


def test_the_servers_words_are_passed_on_cleaned(foreign_server: type[_Answers]) -> None:
    error = {"error": {"code": "NOT_FOUND", "message": "no \x1b[31m", "request_id": "r1"}}
    foreign_server.status, foreign_server.body = 404, json.dumps(error).encode()
    assert failed("projects", "list") == "voicethere: no \\x1b[31m\n"


@pytest.mark.parametrize("content", ["{", "[]", '{"api_key": 5}', "\udcff"])
def test_a_broken_credentials_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    monkeypatch.setenv("VOICETHERE_CREDENTIALS_PATH", str(path))
    message = failed("projects", "list")
    assert str(path) in message
    assert "voicethere login" in message


def test_a_credentials_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOICETHERE_CREDENTIALS_PATH", str(tmp_path))  # a folder
    assert "cannot read" in failed("projects", "list")


@pytest.mark.parametrize("key", ["vth key", "vth_é", "vth_\nx"])
def test_a_key_with_characters_that_no_key_has(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("VOICETHERE_API_KEY", key)
    assert "VOICETHERE_API_KEY" in failed("projects", "list")


def test_a_broken_project_file(foreign_server: type[_Answers], tmp_path: Path) -> None:
    folder = Path(".voicethere")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert "voicethere projects use" in failed("projects", "errors", "list")


def test_credentials_are_private_from_the_first_byte_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    path = config.write_credentials(config.Credentials(api_base="http://x", api_key="k"))
    assert path == Path.home() / ".config" / "voicethere" / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(Failure, match="No space left"):
        config.write_credentials(config.Credentials(api_base="http://x", api_key="other"))
    assert json.loads(path.read_text())["api_key"] == "k"
    assert os.listdir(path.parent) == ["credentials.json"]


def test_variables_win_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_credentials(config.Credentials(api_base="http://file", api_key="file"))
    assert config.effective_credentials() == config.Credentials(api_base="http://file", api_key="file")
    monkeypatch.setenv("VOICETHERE_API_KEY", "variable")
    assert config.effective_credentials() == config.Credentials(api_base="http://file", api_key="variable")
    monkeypatch.setenv("VOICETHERE_API_BASE", "http://variable")
    assert config.effective_credentials().api_base == "http://variable"


def test_the_project_file_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.json"
    monkeypatch.setenv("VOICETHERE_PROJECT_CONFIG", str(path))
    written = config.write_project_config(config.ProjectConfig(project_id="p", name="n"))
    assert written == path
    assert json.loads(path.read_text()) == {"project_id": "p", "name": "n"}
    assert config.project_config() == config.ProjectConfig(project_id="p", name="n")
    assert not Path(".voicethere").exists()


def test_every_command_loads_and_explains_itself() -> None:
    for name in COMMANDS:
        result = CliRunner().invoke(cli, [name, "--help"])
        assert result.exit_code == 0, (name, result.output)
        assert "Usage:" in result.stdout


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from voicethere.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "heavy = {'httpx', 'rich', 'litestar', 'sqlalchemy', 'aiortc', 'numpy', 'uvicorn', 'structlog'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_an_unexpected_exception_is_one_line(tmp_path: Path) -> None:
    script = (
        "import click\n"
        "from voicethere.cli import main\n"
        "@main.cli.command('burst')\n"
        "def burst() -> None: raise RuntimeError('pop\\x1b[2J')\n"
        "main.main(['burst'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "RuntimeError: pop\\x1b[2J" in done.stderr


@pytest.mark.parametrize(
    ("text", "present", "value"),
    [("yes", False, True), ("0", True, False), ("12", 3, 12), ("12", "x", "12"), ("", "x", "")],
)
def test_values_are_read_as_the_settings_type(text: str, present: object, value: object) -> None:
    assert parse_value("key", text, present) == value
