"""How a session ends, and what of it the application is told: each error once, none after the ending one.

No I/O. `Session` tells it what it hears and asks what follows.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec
from msgspec import UNSET

from voicethere.client.interpret import SessionClosed
from voicethere.errors.records import SessionErrorEnvelope

_RECENT_ERRORS = 16


class SessionEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a session ended. `reason` is the runner's end reason, or the code of the error that ended it."""

    reason: str
    error: SessionErrorEnvelope | None = None


class ConnectError(Exception):
    """The session ended before it was connected. `error` is what `on_session_error` was told."""

    def __init__(self, end: SessionEnd) -> None:
        super().__init__(end.error.message if end.error is not None else f"the session ended: {end.reason}")
        self.end = end
        self.error = end.error


class Ending:
    """What is known of the end so far."""

    def __init__(self) -> None:
        self.settled = asyncio.Event()
        """Set once nothing more can explain the end: something has, or nobody is left to."""
        self._error: SessionErrorEnvelope | None = None
        self._recent: deque[SessionErrorEnvelope] = deque(maxlen=_RECENT_ERRORS)
        self._said: SessionClosed | None = None

    @property
    def begun(self) -> bool:
        """Whether the session is on its way to the end, so that a lost connection is no surprise."""
        return self._error is not None or self._said is not None

    def heard_error(self, envelope: SessionErrorEnvelope) -> bool:
        """Whether the application is to be told of this error: not after the one that ends the session."""
        if self._error is not None or self._again(envelope):
            return False
        if not envelope.recoverable:
            self._error = envelope
            self.settled.set()
        return True

    def _again(self, envelope: SessionErrorEnvelope) -> bool:
        """Whether it was told before: after a loss a runner repeats what it cannot know to have arrived."""
        if envelope.occurred_at is UNSET:
            return False
        again = envelope in self._recent
        self._recent.append(envelope)
        return again

    def heard_close(self, said: SessionClosed) -> bool:
        """Whether this is the first word that the session closes."""
        if self._said is not None:
            return False
        self._said = said
        self.settled.set()
        return True

    def outcome(self) -> SessionEnd | None:
        """How the session ended, as far as anybody said; None where nobody did."""
        if self._said is not None:
            return SessionEnd(reason=self._said.reason, error=self._error)
        if self._error is not None:
            return SessionEnd(reason=self._error.code, error=self._error)
        return None
