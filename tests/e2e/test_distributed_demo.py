"""The demo and a part of the fault matrix on Redis and PostgreSQL, with every role a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FAULTS = ("killed", "runner_killed")


async def run(*words: str, folder: Path) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "voicethere.cli.main", *words, "--engines=distributed", "--json"),
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, progress = await process.communicate()
    assert process.returncode == 0, progress.decode()
    result: dict[str, Any] = json.loads(out)
    return result


async def test_the_demo_shows_the_same_on_several_machines_engines(tmp_path: Path) -> None:
    result = await run("demo", folder=tmp_path)
    assert result["ok"] is True
    assert {
        scenario["name"]: [row["code"] for row in scenario["stored"]] for scenario in result["scenarios"]
    } == {
        "healthy_turn": [],
        "handler_raises": ["AGENT_HANDLER_FAILED"],
        "child_killed": ["AGENT_CHILD_CRASHED"],
        "text_turn_raises": ["AGENT_HANDLER_FAILED"],
        "chat_turn_raises": ["AGENT_HANDLER_FAILED"],
    }
    assert list(tmp_path.iterdir()) == [], "the demo left a folder"


@pytest.mark.alone
async def test_faults_are_explained_there_too(tmp_path: Path) -> None:
    result = await run("faults", *FAULTS, folder=tmp_path)
    assert {case["fault"] for case in result["cases"]} == set(FAULTS)
    assert [case["wrong"] for case in result["cases"] if case["wrong"]] == []
    assert list(tmp_path.iterdir()) == [], "the faults left a folder"
