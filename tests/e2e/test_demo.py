"""`voicethere demo`, as a script runs it: what it prints, what it exits with, what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.waiting import runs
from voicethere.cli.demo.phrases import CRASH_PHRASE, PHRASES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PR_SET_CHILD_SUBREAPER = 36

ENVELOPE_FIELDS = {
    "type",
    "code",
    "message",
    "session_id",
    "project_id",
    "build_id",
    "stack",
    "recoverable",
    "customer_context",
    "occurred_at",
}
ROW_FIELDS = {
    "id",
    "orchestrator_session_id",
    "source",
    "code",
    "message",
    "stack_trace",
    "created_at",
    "client_message",
    "build_id",
    "recoverable",
    "customer_context",
    "occurred_at",
    "details",
}


@pytest.fixture
def orphans() -> Iterator[Callable[[], list[str]]]:
    """Whatever the processes started meanwhile leave behind becomes ours, and can be seen."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    def look() -> list[str]:
        left = []
        for child in psutil.Process().children(recursive=True):
            # One that has ended has nobody but us to collect it, and no command line.
            if child.pid not in before and runs(child):
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.append(" ".join(child.cmdline()))
        return left

    yield look
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


async def run_demo(folder: Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "voicethere.cli.main",
        "demo",
        "--json",
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, progress = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), progress.decode()


async def test_the_demo_shows_every_failure_from_all_three_sides(
    tmp_path: Path, orphans: Callable[[], list[str]]
) -> None:
    status, out, progress = await run_demo(tmp_path)
    assert status == 0, progress
    result: dict[str, Any] = json.loads(out)
    assert result["ok"] is True
    scenarios = {scenario["name"]: scenario for scenario in result["scenarios"]}
    assert list(scenarios) == [
        "healthy_turn",
        "handler_raises",
        "child_killed",
        "text_turn_raises",
        "chat_turn_raises",
    ]

    healthy = scenarios["healthy_turn"]
    assert healthy["spoken"] in PHRASES
    assert healthy["heard"] == healthy["spoken"]
    assert healthy["client_events"] == []
    assert healthy["stored"] == []

    for name, code, mode in [
        ("handler_raises", "AGENT_HANDLER_FAILED", "voice"),
        ("child_killed", "AGENT_CHILD_CRASHED", "voice"),
        ("text_turn_raises", "AGENT_HANDLER_FAILED", "data"),
    ]:
        scenario = scenarios[name]
        assert scenario["mode"] == mode
        (event,), (row,) = scenario["client_events"], scenario["stored"]
        assert event["code"] == row["code"] == code
        assert set(event) <= ENVELOPE_FIELDS
        assert set(row) == ROW_FIELDS
        assert event["session_id"] == row["orchestrator_session_id"] == scenario["session_id"]
        assert event["project_id"] == scenario["project_id"]
        assert event["customer_context"] == row["customer_context"] == {"userId": "u_123", "tier": "pro"}
        assert event["recoverable"] is False
        assert row["client_message"] == event["message"]
        if mode == "voice":
            assert scenario["crash_speech"]["text"] == event["message"]
            assert scenario["crash_speech"]["rms"] > 0.01
            assert scenario["crash_speech"]["seconds"] > 1.0
            assert scenario["timings_ms"]["fault_to_audio"] > 0
        else:
            assert "crash_speech" not in scenario
        assert set(scenario["timings_ms"]) >= {"fault_to_client", "fault_to_stored"}

    assert scenarios["handler_raises"]["heard"] == CRASH_PHRASE
    _check_chat(scenarios["chat_turn_raises"])
    for name in ("handler_raises", "text_turn_raises", "chat_turn_raises"):
        (row,) = scenarios[name]["stored"]
        assert "agent.py" in row["stack_trace"]
        assert "look_up_account" in row["stack_trace"]
        assert row["message"].startswith("RuntimeError: the account service refused")
        assert row["details"]["crash_kind"] == "raised"
    killed = scenarios["child_killed"]["stored"][0]
    assert killed["details"]["crash_kind"] == "signal"
    assert "vth_demo" not in out, "the secret in the agent's exception message came through"

    assert orphans() == [], "the demo left a process"
    assert list(tmp_path.iterdir()) == [], "the demo left a folder"


def _check_chat(scenario: dict[str, Any]) -> None:
    assert scenario["mode"] == "chat"
    (record,), (row,) = scenario["records"], scenario["stored"]
    assert (record["kind"], record["stage"], record["code"]) == (
        "runtime_error",
        "stream",
        "AGENT_HANDLER_FAILED",
    )
    assert record["recoverable"] is False
    assert record["message"] == row["client_message"]
    assert record["id"] == row["id"]
    assert record["details"]["session_id"] == row["orchestrator_session_id"] == scenario["session_id"]
    assert scenario["client_events"] == [record["details"]]
    assert set(row) == ROW_FIELDS
    assert row["code"] == "AGENT_HANDLER_FAILED"
    assert set(scenario["timings_ms"]) >= {"fault_to_client", "fault_to_stored"}
