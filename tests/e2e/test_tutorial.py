"""The tutorial, run as a newcomer would: every command and every snippet of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.markdown_blocks import blocks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
STEP_SECONDS = 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Newcomer:
    """Somebody with two terminals, a folder of their own and nothing of ours in their home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = folder / "home"
        home.mkdir()
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {"PATH": path, "HOME": str(home), "VOICETHERE_PORT": "0", "LANG": "C.UTF-8"}
        self.base_url = ""
        self.key = ""
        self.platform: subprocess.Popen[str] | None = None

    def second_terminal(self, command: str) -> None:
        self.platform = subprocess.Popen(
            command.split(),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.platform.stdout is not None
        said = ""
        for line in self.platform.stdout:
            said += line
            if "Ctrl-C" in line:
                break
        url = re.search(r"http://[\d.]+:\d+", said)
        key = re.search(r"key +(vth_\S+)", said)
        assert url is not None, said
        assert key is not None, said
        self.base_url, self.key = url[0], key[1]

    def run(self, command: str) -> str:
        """Run a line of the page, with this platform's address and key where the page has its own."""
        command = command.replace("http://127.0.0.1:8080", self.base_url or "http://127.0.0.1:8080")
        command = command.replace("vth_…", self.key)
        if command.startswith("make setup"):
            # Up to date already: the tests run from the environment that it makes.
            assert "setup" in (ROOT / "Makefile").read_text()
            return ""
        if command.startswith(". "):
            return ""
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def leave(self) -> None:
        if self.platform is not None:
            self.platform.send_signal(2)
            self.platform.communicate(timeout=30)


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    person = Newcomer(tmp_path)
    yield person
    person.leave()


def test_every_command_and_snippet_works(newcomer: Newcomer) -> None:
    said: dict[str, str] = {}
    for block in blocks(PAGE):
        if block.language == "python":
            (newcomer.folder / block.title).write_text(block.body)
        elif block.title == "second terminal":
            newcomer.second_terminal(block.commands[0])
        else:
            assert block.language == "console", block
            for command in block.commands:
                said[command] = newcomer.run(command)

    def output(beginning: str) -> str:
        return next(text for command, text in said.items() if beginning in command)

    assert "on_user_speech_final" in output("agent verify")
    espresso = output('"one espresso"')
    assert "agent: One espresso, that is 2 euros." in espresso
    assert "all is well" in espresso
    assert (newcomer.folder / "answer.wav").stat().st_size > 10_000
    assert "error: AGENT_HANDLER_FAILED: Sorry, the bar is confused." in output('"one coffee"')
    assert "AGENT_HANDLER_FAILED" in output("errors list")
    row = json.loads(output("errors list --limit 1 --json"))["errors"][0]
    assert row["message"] == "KeyError: 'coffee'"
    assert 'agent.py", line' in row["stack_trace"]
    assert row["customer_context"] == {"userId": "u_123"}

    tea = [json.loads(line) for line in output('--send "one tea"').splitlines()]
    assert "One tea, that is 3 euros." in [line.get("content") for line in tea]
    coffee = output('--send "one coffee"').splitlines()
    assert coffee[-1] == "exit status 1"
    errors = [line for line in map(json.loads, coffee[:-1]) if line["event"] == "error"]
    assert [line["error"]["code"] for line in errors] == ["AGENT_HANDLER_FAILED"]
