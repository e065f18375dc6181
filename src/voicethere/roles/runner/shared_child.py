"""One agent child that several sessions share: who hears of what.

What concerns a session goes to its seat; the child's start, its end, and a failure of which nobody knows
whose it is go to all. It does not decide when it is used: `AgentSupply` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from voicethere.roles.runner.agent_child import AgentChild, AgentEvent, MessageToSession
from voicethere.roles.runner.agent_events import AgentError, ChildGone, LogLine
from voicethere.wire import ipc

_log = structlog.get_logger(__name__)

STOP_SECONDS = 0.5

MakeChild = Callable[[Callable[[AgentEvent], None]], AgentChild]


class SharedChild:
    """`make_child(on_event)` makes the child; `unused(self)` is called when nobody came for so long."""

    def __init__(
        self,
        make_child: MakeChild,
        *,
        project_id: str,
        linger_seconds: float,
        unused: Callable[[SharedChild], None],
    ) -> None:
        self._child = make_child(self._event)
        self._project_id = project_id
        self._linger_seconds = linger_seconds
        self._unused = unused
        self._seats: dict[str, Seat] = {}
        self._loaded: ipc.AgentLoaded | None = None
        self._starting: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self.open = True
        """Whether sessions may still be given to it: not once it is gone, or has failed for all of them."""

    def seat(self, session_id: str, on_event: Callable[[AgentEvent], None]) -> Seat:
        """A place for one more session."""
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        seat = Seat(self, self._child, session_id, on_event)
        self._seats[session_id] = seat
        return seat

    async def start(self) -> None:
        """Start the child, once for all. Raises SandboxUnavailable to everybody who asked."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._child.start(), name="start a shared agent child")
        try:
            # Whoever gives up must not take the child away from the others.
            await asyncio.shield(self._starting)
        except BaseException:
            if self._starting.done():
                self.open = False
            raise

    @property
    def loaded(self) -> ipc.AgentLoaded | None:
        """What the child said when it was loaded; None before."""
        return self._loaded

    def leave(self, seat: Seat) -> None:
        """The session is over. The last one to leave sets the clock."""
        if self._seats.get(seat.session_id) is not seat:
            return
        del self._seats[seat.session_id]
        if not self._seats and self._leaving is None:
            seconds = self._linger_seconds if self.open else 0.0
            self._leaving = asyncio.get_running_loop().call_later(seconds, self._nobody_came)

    async def stop(self) -> None:
        """End the child; who still sits in it hears no more of it."""
        self.open = False
        if self._leaving is not None:
            self._leaving.cancel()
        if self._starting is not None:
            await asyncio.wait([self._starting])
        await self._child.stop(STOP_SECONDS)

    def _nobody_came(self) -> None:
        self.open = False
        self._unused(self)

    # ------------------------------------------------------------------ from the child

    def _event(self, event: AgentEvent) -> None:
        match event:
            case ipc.AgentLoaded():
                self._loaded = event
                self._tell_all(event)
            case ChildGone() | AgentError(session_id=None):
                self.open = False
                self._tell_all(event)
            case LogLine(session_id=None):
                _log.info(
                    "agent_log",
                    project_id=self._project_id,
                    level_of_agent=event.level,
                    message=event.message,
                    fields=event.fields,
                )
            case _:
                seat = self._seats.get(event.session_id or "")
                if seat is not None:
                    seat.tell(event)

    def _tell_all(self, event: AgentEvent) -> None:
        for seat in tuple(self._seats.values()):
            try:
                seat.tell(event)
            except Exception:  # one session's trouble must not keep it from the others
                _log.exception("agent_event_not_handled", session_id=seat.session_id)


class Seat:
    """One session's part of a shared child: the same to its host as a child of its own."""

    def __init__(
        self,
        shared: SharedChild,
        child: AgentChild,
        session_id: str,
        on_event: Callable[[AgentEvent], None],
    ) -> None:
        self._shared = shared
        self._child = child
        self._on_event = on_event
        self._told_loaded = False
        self._given = False
        self._over = asyncio.Event()
        self.session_id = session_id

    async def start(self) -> None:
        """Return when the child runs; who comes later hears at once that it is loaded.

        Raises:
            SandboxUnavailable: no process could be started; there will be no event.
        """
        await self._shared.start()
        if self._shared.loaded is not None:
            self.tell(self._shared.loaded)

    def session_start(self, message: ipc.SessionStart) -> None:
        """Give the child the session."""
        self._given = True
        self._child.session_start(message)

    def send(self, message: MessageToSession) -> None:
        """Send what concerns the session."""
        self._child.send(message)

    def session_end(self, session_id: str) -> None:
        """End the session in the child."""
        self._child.session_end(session_id)

    async def stop(self, grace: float) -> None:
        """End the session within `grace` seconds, and leave; the child goes on for the others.

        A session that does not end in time is overdue in the child, which counts as unresponsive then.
        """
        try:
            if self._given and not self._over.is_set():
                self._child.session_end(self.session_id)
                async with asyncio.timeout(grace):
                    await self._over.wait()
        except TimeoutError:
            pass
        finally:
            self._shared.leave(self)

    def tell(self, event: AgentEvent) -> None:
        """Hand an event to the session's host."""
        if isinstance(event, ipc.AgentLoaded):
            if self._told_loaded:
                return
            self._told_loaded = True
        if isinstance(event, ipc.SessionEndAck | ChildGone):
            self._over.set()
        self._on_event(event)
