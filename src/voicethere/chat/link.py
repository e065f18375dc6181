"""A conversation kept connected: one connection after the other, with a pause before each new one.

Knows when to try again. What one connection does, and records, is its own business.
"""

from __future__ import annotations

import asyncio

from voicethere.chat.connection import Connection, Wiring
from voicethere.chat.event_log import LifecyclePhase
from voicethere.chat.gateway import Target
from voicethere.chat.reconnecting import Backoff, Reconnecting
from voicethere.chat.socket import SocketEnd
from voicethere.core.chat.sem_context import SemContext


class Link:
    """Connects at once, and again after each loss until it is abandoned, or the server will not have it."""

    def __init__(
        self, wiring: Wiring, context: SemContext, target: Target, reconnecting: Reconnecting | None
    ) -> None:
        self._wiring = wiring
        self._context = context
        self.target = target
        self._backoff = None if reconnecting is None else Backoff(reconnecting)
        self._settled = asyncio.Event()
        self._woken = asyncio.Event()
        self._connection = Connection(wiring, context, target, self._settled.set)
        self._task = asyncio.create_task(self._run(), name=f"chat-{context.conv_id}")

    @property
    def is_over(self) -> bool:
        """Whether it will not connect again by itself."""
        end = self._connection.end
        return self._task.done() or (end is not None and not self._goes_on_after(end))

    async def settled(self) -> None:
        """Wait until the newest connection has its snapshot, or has failed; or the link was abandoned."""
        await self._settled.wait()

    def wake(self) -> None:
        """Where it pauses before the next connection, or is about to: connect now."""
        if self._connection.end is not None:
            self._settled.clear()
            self._woken.set()

    def note_reuse(self) -> None:
        """Log that another user of the conversation came."""
        self._wiring.log.record_phase(self._context.conv_id, LifecyclePhase.CONNECT_REUSE)

    def abandon(self) -> asyncio.Task[None]:
        """Let go at once; the task that is returned ends when the socket is closed."""
        self._connection.abandon()
        self._settled.set()
        self._task.cancel()
        self._wiring.log.record_phase(self._context.conv_id, LifecyclePhase.DISCONNECT)
        return self._task

    async def _run(self) -> None:
        while True:
            end = await self._connection.run()
            if self._backoff is None or not self._goes_on_after(end):
                return
            await self._pause(self._backoff.next(self._connection.held_seconds))
            self._connection = Connection(self._wiring, self._context, self.target, self._settled.set)

    def _goes_on_after(self, end: SocketEnd) -> bool:
        return self._backoff is not None and not end.hopeless

    async def _pause(self, seconds: float) -> None:
        woken = asyncio.ensure_future(self._woken.wait())
        waited = asyncio.ensure_future(self._wiring.sleep(seconds))
        try:
            await asyncio.wait([woken, waited], return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            waited.cancel()
            self._woken.clear()
