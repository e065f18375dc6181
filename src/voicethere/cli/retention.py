"""Deleting what is past its time, again and again, a bounded batch at a time. Several may do it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from voicethere.adapters.store import Store, StoreUnavailable

PAUSE_SECONDS = 0.2
"""Between two batches: whoever commits errors must get a word in."""

_log = structlog.get_logger(__name__)


class Retention:
    """`days` and `errors` are what holds where a project says nothing; 0 keeps for ever."""

    def __init__(
        self,
        store: Store,
        *,
        days: int,
        errors: int,
        every_seconds: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._days = days
        self._errors = errors
        self._every_seconds = every_seconds
        self._sleep = sleep

    async def run(self) -> None:
        """Look at once, and then every so often, until cancelled. A database that is away is left alone."""
        while True:
            try:
                more = await self._look()
            except StoreUnavailable as problem:
                _log.warning("retention_postponed", reason=str(problem))
                more = False
            await self._sleep(PAUSE_SECONDS if more else self._every_seconds)

    async def _look(self) -> bool:
        done = await self._store.apply_retention(default_days=self._days, default_errors=self._errors)
        if (
            done.deleted_errors
            or done.deleted_sessions
            or done.deleted_conversations
            or done.deleted_dead_letters
        ):
            _log.info(
                "retention_applied",
                errors=done.deleted_errors,
                sessions=done.deleted_sessions,
                conversations=done.deleted_conversations,
                dead_letters=done.deleted_dead_letters,
            )
        return done.more
