"""Counts what came over the relay and could not be understood, and says so once in a while."""

from __future__ import annotations

import asyncio

import structlog

_log = structlog.get_logger(__name__)

_EVERY_SECONDS = 30.0


class Junk:
    """Anybody who may publish can flood a channel; the log must not be flooded with it."""

    def __init__(self) -> None:
        self.count = 0
        self._unsaid = 0
        self._said_at: float | None = None

    def ignore(self, channel: str, problem: str) -> None:
        """One more message was ignored."""
        self.count += 1
        self._unsaid += 1
        now = asyncio.get_running_loop().time()
        if self._said_at is None or now - self._said_at >= _EVERY_SECONDS:
            self._said_at = now
            _log.warning("relay_junk_ignored", channel=channel, problem=problem[:200], count=self._unsaid)
            self._unsaid = 0
