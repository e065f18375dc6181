"""Closing several parts at once, each within limits: what could not be closed is said, and left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any


async def close_all(parts: Mapping[str, Coroutine[Any, Any, None]], seconds: float) -> list[str]:
    """Close `parts` (what it is → how), and say in words which did not, or could not, within `seconds`."""
    closing = {asyncio.create_task(work, name=f"close {what}"): what for what, work in parts.items()}
    # Not `wait_for`: that waits for what it has cancelled, and what hangs may hang in that too.
    await asyncio.wait(closing, timeout=seconds)
    problems = []
    for task, what in closing.items():
        if not task.done():
            problems.append(f"{what} did not close within {seconds:g} s")
            task.add_done_callback(_retrieve)
            task.cancel()
        elif (problem := _retrieve(task)) is not None:
            problems.append(f"{what} could not be closed ({type(problem).__name__}: {problem})")
    return problems


def _retrieve(task: asyncio.Task[None]) -> BaseException | None:
    """What a task that nobody awaits has raised."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()
