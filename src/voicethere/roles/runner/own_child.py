"""The agent of one session in a process of its own: one that is warm where there is one, else a fresh one.

From `start` on there is no difference between them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from voicethere.roles.runner.agent_child import AgentChild, AgentEvent, MessageToSession
from voicethere.roles.runner.warm_child import WarmChild
from voicethere.wire import ipc

OnEvent = Callable[[AgentEvent], None]


class OwnChild:
    """Implements `SessionAgent`.

    `take_warm()` gives a child that runs already, and is the session's from then on; or None.
    """

    def __init__(
        self,
        *,
        take_warm: Callable[[], Awaitable[WarmChild | None]],
        make_fresh: Callable[[OnEvent], AgentChild],
        on_event: OnEvent,
    ) -> None:
        self._take_warm = take_warm
        self._make_fresh = make_fresh
        self._on_event = on_event
        self._child: AgentChild | None = None

    async def start(self) -> None:
        """Return when the process runs.

        Raises:
            SandboxUnavailable: no process could be started; there will be no event.
        """
        warm = await self._take_warm()
        if warm is None:
            self._child = self._make_fresh(self._on_event)
            await self._child.start()
        else:
            # First: whoever hears that it is loaded may answer with the session at once.
            self._child = warm.child
            warm.give_to(self._on_event)

    def session_start(self, message: ipc.SessionStart) -> None:
        """Give the child the session."""
        if self._child is not None:
            self._child.session_start(message)

    def send(self, message: MessageToSession) -> None:
        """Send what concerns the session; before `start` is under way there is nobody to hear it."""
        if self._child is not None:
            self._child.send(message)

    def session_end(self, session_id: str) -> None:
        """End the session in the child."""
        if self._child is not None:
            self._child.session_end(session_id)

    async def stop(self, grace: float) -> None:
        """As `AgentChild.stop`."""
        if self._child is not None:
            await self._child.stop(grace)
