"""Waiting for what nothing announces: the operating system's view, or a row behind an API."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psutil
import pytest
import tenacity

from voicethere.testing.platform_process import Operator

T = TypeVar("T")
PATIENCE = 60.0


async def eventually(what: str, ask: Callable[[], Awaitable[T]], good: Callable[[T], bool] = bool) -> T:
    """Ask until the answer is good; fail the test when it is not within a minute."""
    asking = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_result(lambda answer: not good(answer)),
        wait=tenacity.wait_fixed(0.02),
        stop=tenacity.stop_after_delay(PATIENCE),
    )

    async def once() -> T:
        return await ask()

    try:
        return await asking(once)
    except tenacity.RetryError as error:
        pytest.fail(f"{what} did not come true; last: {error.last_attempt.result()}")


async def eventually_true(what: str, look: Callable[[], bool]) -> None:
    """The same for a condition that is looked at at once."""

    async def ask() -> bool:
        return look()

    await eventually(what, ask)


async def errors_at_the_end(operator: Operator, project_id: str, session_id: str) -> list[dict[str, Any]]:
    """The session's stored errors once its end is stored: that comes behind all of them.

    By then nothing of the session is left on its runner, either.
    """
    await eventually(
        "the session's end",
        lambda: operator.session(project_id, session_id),
        lambda row: row["ended_at"] is not None,
    )
    return await operator.errors(project_id, session_id)


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; one that nobody has collected yet has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it was collected between the two looks
        return False


def agents_of(runner: psutil.Process) -> set[int]:
    """The agents' processes: children of the zygote, which is a child of the runner."""
    agents: set[int] = set()
    for child in runner.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # zombies, too: it ended while we looked
            if "zygote" in " ".join(child.cmdline()):
                agents.update(agent.pid for agent in child.children())
    return agents
