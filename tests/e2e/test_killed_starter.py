"""A platform that something started ends with it, even when that something is killed."""

from __future__ import annotations

import asyncio
import signal
import sys

import psutil
import pytest

from tests.e2e.waiting import eventually_true, runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

STARTER = """
import asyncio, os
from voicethere.testing.platform_process import fresh_platform

async def main():
    async with fresh_platform() as platform:
        print(platform.runner_pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_nothing_outlives_a_killed_starter() -> None:
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    runner = psutil.Process(int(await starter.stdout.readline()))
    platform = runner.parent()
    assert platform is not None
    everything = [platform, *platform.children(recursive=True)]
    assert len(everything) >= 4
    starter.send_signal(signal.SIGKILL)
    await starter.communicate()
    await eventually_true(
        "the end of every process of the platform",
        lambda: not any(runs(each) for each in everything),
    )
