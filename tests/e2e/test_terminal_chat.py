"""`voicethere chat --json-events` on a whole platform: an agent that streams, fails, and is asked again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.cli_chat.chat_process import Chat
from voicethere.testing.platform_process import Operator, RunningPlatform

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

STORYTELLER = Path(__file__).parents[2] / "examples" / "storyteller_agent.py"


async def test_a_script_talks_to_an_agent_that_fails_and_comes_back(
    platform: RunningPlatform, operator: Operator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deployed = await operator.deploy(STORYTELLER.read_bytes(), name="stories in a terminal", mode="data")
    monkeypatch.setenv("VOICETHERE_CREDENTIALS_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("VOICETHERE_API_BASE", platform.base_url)
    monkeypatch.setenv("VOICETHERE_API_KEY", deployed.client_key)
    async with Chat("--json-events", "--wait", "30") as chat:
        output, error, status = await chat.say("tell me a riddle\nhow are you\n")
    lines = [json.loads(line) for line in output.splitlines()]
    assert status == 1, error
    (failure,) = [line["error"] for line in lines if line["event"] == "error"]
    assert failure["code"] == "AGENT_HANDLER_FAILED"
    assert failure["recoverable"] is False
    assert lines[-1]["problems"] == ["the session failed: AGENT_HANDLER_FAILED"]
    shown = [line for line in lines if line["event"] == "entity" and line["kind"] == "error"]
    assert shown[-1]["props"]["code"] == "AGENT_HANDLER_FAILED"
    said = [line["content"] for line in lines if line["event"] == "message" and not line["streaming"]]
    assert "I am well, thank you. I have read a good book. And you?" in said
