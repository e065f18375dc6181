"""Fresh join tokens for a client that is connected: asked for when it opens, and well before each expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voicethere.core.ports import Clock
from voicethere.errors.times import parse_iso


class TokenRenewal:
    """`want` asks the session service; `share`: after which part of a token's life that is done again."""

    def __init__(self, *, clock: Clock, share: float, want: Callable[[], None]) -> None:
        self._clock = clock
        self._share = share
        self._want = want
        self._timer: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Ask for a token now."""
        self._want()

    def issued(self, expires_at: str) -> None:
        """One was issued, good until this wire time: the next is asked for before."""
        self.stop()
        left = parse_iso(expires_at).timestamp() - self._clock.now()
        self._timer = asyncio.get_running_loop().call_later(max(1.0, left * self._share), self._want)

    def stop(self) -> None:
        """Ask for no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
