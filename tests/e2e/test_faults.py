"""Every fault of the matrix, once, in real sessions: all are explained."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(420)]


async def test_every_fault_is_explained() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "voicethere.cli.main",
        "faults",
        "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, progress = await process.communicate()
    result = json.loads(out)
    wrong = {f"{case['fault']} ({case['mode']})": case["wrong"] for case in result["cases"] if case["wrong"]}
    assert wrong == {}, progress.decode()
    assert result["explained"] == result["of"] == len(result["cases"])
    assert process.returncode == 0
