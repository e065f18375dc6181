"""The `session-errors` queue in memory, for tests that need no file.

It passes the contract tests of the port like the real ones, except for one thing: it is gone with its
process.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from voicethere.core.clock import SystemClock
from voicethere.core.ports import Clock, Delivery, QueueUnavailable
from voicethere.errors.codes import ErrorSource, SessionErrorCode
from voicethere.errors.records import ErrorRecord
from voicethere.wire.queue import ErrorItem, QueueItem, decode, encode


def sample_error(session_id: str = "session-1", project_id: str = "project-1", **changes: Any) -> ErrorItem:
    """An item as a runner puts it, with an id of its own; `changes` are fields of its record."""
    fields: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "session_id": session_id,
        "project_id": project_id,
        "build_id": None,
        "source": ErrorSource.AGENT,
        "code": SessionErrorCode.AGENT_HANDLER_FAILED,
        "message": "ValueError: no such order",
        "client_message": "Sorry, something went wrong.",
        "stack": 'Traceback (most recent call last):\n  File "agent.py", line 12, in on_user_speech_final',
        "recoverable": False,
        "customer_context": {"userId": "u_123"},
        "occurred_at": "2026-06-19T12:00:00.000Z",
        "details": {"hook": "on_user_speech_final"},
    }
    return ErrorItem(record=ErrorRecord(**{**fields, **changes}))


class InMemoryErrorQueue:
    """Implements `ErrorQueuePort`. Set `unavailable` to words to make every call fail with them.

    Example:
        >>> queue = InMemoryErrorQueue()
        >>> queue.unavailable = "the disk is full"
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.unavailable: str | None = None
        self._clock = clock or SystemClock()
        self._items: dict[int, bytes] = {}
        self._put_at: dict[int, float] = {}
        self._last = 0
        self._delivered = 0
        self._closed = False
        self._arrived = asyncio.Event()

    def put_raw(self, data: bytes) -> None:
        """Put bytes that need not be an item, as a foreign program might."""
        self._last += 1
        self._items[self._last] = data
        self._put_at[self._last] = self._clock.monotonic()
        self._arrived.set()

    def reopened(self) -> InMemoryErrorQueue:
        """What the next process would find: everything that is not acknowledged. This one is closed."""
        successor = InMemoryErrorQueue(self._clock)
        successor._items = self._items
        successor._put_at = self._put_at
        successor._last = self._last
        self._closed = True
        return successor

    async def put(self, items: Sequence[QueueItem]) -> None:
        """All items or, where QueueUnavailable is raised, none."""
        encoded = [encode(item) for item in items]
        self._check()
        for data in encoded:
            self.put_raw(data)

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """What was not received yet; waits for it for as long as `wait_seconds`."""
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self._check()
        if not self._waiting():
            self._arrived.clear()
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._arrived.wait()
            except TimeoutError:
                return []
            self._check()
        positions = self._waiting()[:limit]
        if positions:
            self._delivered = positions[-1]
        return [_delivery(position, self._items[position]) for position in positions]

    async def acknowledge(self, positions: Sequence[str]) -> None:
        """Forget these items; ValueError for a position that none had."""
        if not all(position.isascii() and position.isdigit() for position in positions):
            raise ValueError(f"not positions of this queue: {list(positions)!r}")
        self._check()
        for position in positions:
            self._items.pop(int(position), None)
            self._put_at.pop(int(position), None)

    async def depth(self) -> int:
        """How many items are not acknowledged."""
        self._check()
        return len(self._items)

    async def oldest_seconds(self) -> float | None:
        """By the clock that was passed in."""
        self._check()
        oldest = min(self._items, default=None)
        return None if oldest is None else self._clock.monotonic() - self._put_at[oldest]

    async def aclose(self) -> None:
        """From now on every call fails."""
        self._closed = True
        self._arrived.set()

    def _check(self) -> None:
        if self._closed:
            raise QueueUnavailable("the queue is closed")
        if self.unavailable is not None:
            raise QueueUnavailable(self.unavailable)

    def _waiting(self) -> list[int]:
        return [position for position in self._items if position > self._delivered]


def _delivery(position: int, data: bytes) -> Delivery:
    try:
        return Delivery(str(position), data, decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Delivery(str(position), data, None, f"not an item of this queue: {error}")
