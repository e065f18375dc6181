"""Waits a database out that cannot be used now: what was decided must be written down, however late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import tenacity

from voicethere.adapters.store.store import StoreUnavailable

Result = TypeVar("Result")

_log = structlog.get_logger(__name__)


async def patiently(action: Callable[[], Awaitable[Result]]) -> Result:
    """What `action` returns, tried until the database can be used."""
    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(StoreUnavailable),
        wait=tenacity.wait_exponential(multiplier=0.1, max=2.0),
        before_sleep=_database_is_away,
    )

    async def attempt() -> Result:
        return await action()

    # An async function, not `action` itself: tenacity would hand back a lambda's coroutine unawaited.
    return await attempts(attempt)


def _database_is_away(state: tenacity.RetryCallState) -> None:
    problem = state.outcome.exception() if state.outcome else None
    _log.warning("database_awaited", attempt=state.attempt_number, problem=str(problem))
