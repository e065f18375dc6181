"""One child that is ready before its session: its bundle is imported, its `on_agent_start` is done.

It keeps what the child says until a session takes it, and knows whether it is still worth taking. When one is
started, and how many there are, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from voicethere.errors.causes import Crash
from voicethere.errors.convert import crash_words
from voicethere.roles.runner.agent_child import AgentChild, AgentEvent
from voicethere.roles.runner.agent_events import AgentError, ChildGone, LogLine
from voicethere.wire import ipc

MAX_KEPT_LINES = 200
"""Of what was written before there was a session: the newest."""

OnEvent = Callable[[AgentEvent], None]


class WarmChildLost(Exception):
    """It is of no use to a session any more; the words say why. They are not redacted."""


class WarmChild:
    """`make(on_event)` makes the child. One task loads it and waits (`load`, `left`), another may take it.

    Until it is taken no failure of it concerns a session.
    """

    def __init__(self, make: Callable[[OnEvent], AgentChild]) -> None:
        self._child = make(self._event)
        self._lines: deque[LogLine] = deque(maxlen=MAX_KEPT_LINES)
        self._left_out = 0
        self._loaded: ipc.AgentLoaded | None = None
        self._lost: str | None = None
        self._session: OnEvent | None = None
        self._changed = asyncio.Event()
        self.claimed = False
        """Whether a session has asked for it: nobody else may."""

    async def load(self) -> None:
        """Return when the agent is loaded.

        Raises:
            WarmChildLost: it could not be.
            SandboxUnavailable: no process could be started.
        """
        await self._child.start()
        while self._loaded is None:
            await self._change()

    async def left(self, seconds: float) -> None:
        """Return when it was claimed, or has become so old.

        Raises:
            WarmChildLost: it died, or failed.
        """
        try:
            async with asyncio.timeout(seconds):
                while not self.claimed:
                    await self._change()
        except TimeoutError:
            return

    def claim(self) -> None:
        """A session wants it."""
        self.claimed = True
        self._changed.set()

    async def answers(self, seconds: float) -> bool:
        """Whether it is there, and has not failed: asked just before a session gets it."""
        return await self._child.answers(seconds) and self._lost is None

    @property
    def child(self) -> AgentChild:
        """For the session that it was given to."""
        return self._child

    def give_to(self, on_event: OnEvent) -> None:
        """It is a session's child now: `on_event` hears what it has said so far, and all that follows."""
        assert self._loaded is not None, "only a child that is loaded can be taken"
        self._session = on_event
        if self._left_out:
            words = f"{self._left_out} lines that the agent wrote before this session were left out"
            on_event(LogLine(level="warn", message=words, time=self._lines[0].time))
        for line in self._lines:
            on_event(line)
        self._lines.clear()
        on_event(self._loaded)

    async def stop(self) -> None:
        """End the process: it has no session. Raises what the sandbox does where it cannot clean up."""
        await self._child.stop(0)

    async def _change(self) -> None:
        if self._lost is None:
            self._changed.clear()
            await self._changed.wait()
        if self._lost is not None and not self.claimed:
            raise WarmChildLost(self._lost)

    def _event(self, event: AgentEvent) -> None:
        if self._session is not None:
            self._session(event)
            return
        match event:
            case LogLine():
                self._left_out += len(self._lines) == MAX_KEPT_LINES
                self._lines.append(event)
                return
            case ipc.AgentLoaded():
                self._loaded = event
            case AgentError(hook=hook, message=message):
                # It would be the error of the first session it is given to: that one gets a fresh child.
                self._lost = self._lost or f"{hook}: {message}"
            case ChildGone(crash=crash):
                self._lost = self._lost or ("it was stopped" if crash is None else _words(crash))
            case _:
                return
        self._changed.set()


def _words(crash: Crash) -> str:
    return crash.message or crash_words(crash)
