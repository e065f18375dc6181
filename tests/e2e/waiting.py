"""Waiting for what nothing announces: the operating system's view, or a row behind an API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import tenacity

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
