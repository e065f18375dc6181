"""What the demo looks at from outside a session: the operator's API, and the clock."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import tenacity

from voicethere.cli.ears import STEP_SECONDS, DidNotHappen
from voicethere.testing.platform_process import Operator

T = TypeVar("T")


async def stored_rows(
    operator: Operator, project_id: str, session_id: str
) -> tuple[list[dict[str, Any]], float]:
    """The session's rows as soon as the API shows any, and when that was."""
    rows = await asked_until(
        "a stored error in the API", lambda: operator.errors(project_id, session_id), lambda rows: bool(rows)
    )
    return rows, time.monotonic()


async def session_ended(operator: Operator, project_id: str, session_id: str) -> None:
    """Return once the API shows the session as failed.

    Raises:
        DidNotHappen: it shows no end, or another one.
    """
    row = await asked_until(
        "the session's end in the API",
        lambda: operator.session(project_id, session_id),
        lambda row: row["status"] != "active",
    )
    expect(row["status"] == "failed", f"the session is recorded as {row['status']}, not as failed")


async def asked_until(what: str, ask: Callable[[], Awaitable[T]], good: Callable[[T], bool]) -> T:
    """Ask again every few milliseconds until the answer is good."""
    asking = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_result(lambda answer: not good(answer)),
        wait=tenacity.wait_fixed(0.005),
        stop=tenacity.stop_after_delay(STEP_SECONDS),
    )

    async def once() -> T:
        return await ask()

    try:
        return await asking(once)
    except tenacity.RetryError:
        raise DidNotHappen(f"{what} did not appear within {STEP_SECONDS:g} s") from None


def since(epoch: float) -> float:
    """A moment of the agent's wall clock on this process's monotonic clock: both are of one machine."""
    return time.monotonic() - (time.time() - epoch)


def milliseconds(seconds: float) -> float:
    """For people: to a tenth."""
    return round(seconds * 1000, 1)


def expect(holds: bool, otherwise: str) -> None:
    """Raises DidNotHappen with these words where something that must hold does not."""
    if not holds:
        raise DidNotHappen(otherwise)
