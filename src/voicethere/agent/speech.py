"""The handle of something that the agent said."""

from __future__ import annotations

import enum
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future


class SpeechOutcome(enum.StrEnum):
    """What became of one `speak`. A stream that raised counts as interrupted."""

    PLAYED = "played"
    INTERRUPTED = "interrupted"


class Speech:
    """Returned by `speak`; may be awaited, any number of times and from any event loop, or let go.

    Example:
        >>> async def on_session_start(ctx):
        ...     if await speak(ctx.session_id, "Hello!") is SpeechOutcome.INTERRUPTED:
        ...         agent_log("info", "the user is in a hurry")
    """

    __slots__ = ("_future", "_parts")

    def __init__(self, parts: Sequence[str], future: Future[SpeechOutcome]) -> None:
        self._parts = parts
        self._future = future

    @property
    def text(self) -> str:
        """What is said; of a stream, what has come so far."""
        return "".join(self._parts)

    @property
    def outcome(self) -> SpeechOutcome | None:
        """What became of it, or None while that is open."""
        return self._future.result() if self._future.done() else None

    def __await__(self) -> Generator[Any, None, SpeechOutcome]:
        import asyncio  # here, so that importing the SDK does not pay for it

        # Shielded: a waiter that gives up must not take the outcome from the others.
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()

    def __repr__(self) -> str:
        return f"<Speech {self.text[:40]!r} {self.outcome or 'open'}>"
