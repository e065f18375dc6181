"""Coming back to a session: told when its connection is lost, untold when only its signaling socket is.

Knows when to try and what to make of a refusal; whether the session is connected or over is the session's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

import msgspec

from voicethere.client.background import BackgroundTasks
from voicethere.client.ending import Ending
from voicethere.client.link import RunnerLink
from voicethere.client.rejoining import RejoinFailed, quiet_delays, rejoin
from voicethere.client.signaling import SignalingRefused
from voicethere.errors.codes import SessionErrorCode

_log = logging.getLogger("voicethere.client")

_EXPLANATION_GRACE_SECONDS = 0.5
"""When the transport is lost: how long the gateway may take to say that the runner died."""


class RecoveryEvents(msgspec.Struct, frozen=True, kw_only=True):
    """What a recovery calls, on the event loop.

    `retrying`: tries follow. `explained`: somebody said why the session is over. `failed(code, detail)`: it
    cannot be resumed.
    """

    retrying: Callable[[SessionErrorCode], None]
    explained: Callable[[], None]
    failed: Callable[[SessionErrorCode, str], None]


class Recovery:
    """At most one of each kind runs at a time; both are tasks of the session's."""

    def __init__(
        self,
        link: RunnerLink,
        *,
        ending: Ending,
        tasks: BackgroundTasks,
        delays: Sequence[float],
        events: RecoveryEvents,
    ) -> None:
        self._link = link
        self._ending = ending
        self._tasks = tasks
        self._delays = tuple(delays)
        self._events = events
        self._loud: asyncio.Task[None] | None = None
        self._quiet: asyncio.Task[None] | None = None

    def connection_lost(self, code: SessionErrorCode, *, resumable: bool) -> None:
        """No leg is left. Unless it is `resumable`, only an explanation is waited for."""
        if self._quiet is not None:
            self._quiet.cancel()
        if self._loud is None:
            self._loud = self._tasks.spawn(self._resume(code, resumable=resumable), "resume")

    def connected(self) -> None:
        """A leg carries the session (again)."""
        if self._loud is not None:
            self._loud.cancel()
            self._loud = None
        self.stay_in_room()

    def stay_in_room(self) -> None:
        """With a good connection a lost socket is nobody's concern: join again without a word."""
        wanted = not self._link.in_room and not self._ending.begun
        if wanted and (self._quiet is None or self._quiet.done()):
            self._quiet = self._tasks.spawn(self._rejoin_quietly(), "rejoin-quietly")

    async def _resume(self, code: SessionErrorCode, *, resumable: bool) -> None:
        loop = asyncio.get_running_loop()
        lost_at = loop.time()
        if self._link.in_room:
            # The runner may have died: then the gateway says so within a moment.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EXPLANATION_GRACE_SECONDS):
                    await self._ending.settled.wait()
        if self._ending.begun:
            self._events.explained()
            return
        if not resumable or not self._delays:
            self._events.failed(code, "")
            return
        self._events.retrying(code)
        failure = await rejoin(self._attempt, delays=self._delays, elapsed=loop.time() - lost_at)
        if failure is not None:
            self._events.failed(code, failure)

    async def _attempt(self) -> None:
        try:
            if not self._link.coming_back:
                await self._link.join()
        except SignalingRefused as refusal:
            raise RejoinFailed(str(refusal), final=refusal.unauthorized) from None
        await self._link.carried()

    async def _rejoin_quietly(self) -> None:
        for delay in quiet_delays(self._delays):
            await asyncio.sleep(delay)
            if self._link.in_room or self._ending.begun:
                return
            try:
                await self._link.join()
                return
            except SignalingRefused as refusal:
                _log.info("the room was not joined again: %s", refusal)
                if refusal.unauthorized:
                    return  # media may go on; when that is lost too, it is the end
