"""What the API must show of a session once it is over: that, why, and with which errors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from voicethere.testing.platform_process import Operator

PATIENCE = 30.0
ASK_EVERY = 0.1


class Surprise(Exception):
    """Something did not happen, or should not have; the words say what."""


async def settle(
    operator: Operator, project_id: str, session_id: str, *, stored: Sequence[str], reason: str
) -> None:
    """Wait for the session's end in the API; exactly these codes must be stored then.

    Raises:
        Surprise: it did not end, or not so.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            # Nothing announces it to an operator.
            while (row := await operator.session(project_id, session_id)).get("ended_at") is None:  # noqa: ASYNC110
                await asyncio.sleep(ASK_EVERY)
    except TimeoutError:
        raise Surprise(f"the API shows no end within {PATIENCE:g} s") from None
    # Who sees the end finds the errors: asked once, at once.
    rows = [each["code"] for each in await operator.errors(project_id, session_id)]
    if rows != list(stored):
        raise Surprise(f"stored are {rows}, not {list(stored)}")
    if row["end_reason"] != reason:
        raise Surprise(f"it ended with {row['end_reason']!r}, not {reason!r}")
