"""A chat session's prompts on their way to its agent: in order, one at a time.

A prompt is the agent's once its hook has begun with it. Until then it is kept here: for another child, where
this one dies, or for the conversation's next session, where this one ends. So the next one is handed over
only when the hook is free: an agent that hangs up takes none with it. Knows no numbers and no relay.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable

from voicethere.core.session import Phase
from voicethere.wire.ipc import DataChannelMessage

PROMPT_HOOK = "on_data_channel_message"


class _Hook(enum.Enum):
    AWAY = enum.auto()
    FREE = enum.auto()
    GIVEN = enum.auto()
    RUNNING = enum.auto()


class ChatPrompts:
    """`send` hands a prompt to the child; `taken` hears of each that its hook has begun with, in order.

    `phase()` is where the session stands. Where the agent does not have the hook (`heard()` is false), each
    prompt is `unheard`, and taken.
    """

    def __init__(
        self,
        *,
        send: Callable[[DataChannelMessage], None],
        phase: Callable[[], Phase],
        heard: Callable[[], bool],
        unheard: Callable[[], None],
        taken: Callable[[], None],
    ) -> None:
        self._send = send
        self._phase = phase
        self._heard = heard
        self._unheard = unheard
        self._taken = taken
        self._waiting: deque[DataChannelMessage] = deque()
        self._hook = _Hook.AWAY

    @property
    def waiting(self) -> tuple[DataChannelMessage, ...]:
        """Those that the agent has not begun with."""
        return tuple(self._waiting)

    @property
    def answering(self) -> bool:
        """Whether the agent is at a prompt."""
        return self._hook is _Hook.RUNNING

    def add(self, prompt: DataChannelMessage) -> None:
        """One more, for an agent that is loaded."""
        self._waiting.append(prompt)
        self._go_on()

    def child_starts(self) -> None:
        """Another child is given the session: it has begun with nothing."""
        self._hook = _Hook.AWAY

    def session_started(self) -> None:
        """`on_session_start` is done."""
        if self._hook is _Hook.AWAY:
            self._hook = _Hook.FREE
            self._go_on()

    def hook_began(self, hook: str) -> None:
        """The child runs one of its hooks. One that begins with a prompt when nobody listens to the agent any
        more has not taken it: the next session has."""
        if hook == PROMPT_HOOK and self._hook is _Hook.GIVEN:
            self._hook = _Hook.RUNNING
            if self._phase().open:
                self._waiting.popleft()
                self._taken()

    def hook_over(self, hook: str) -> None:
        """The hook that ran is over."""
        if hook == PROMPT_HOOK and self._hook is _Hook.RUNNING:
            self._hook = _Hook.FREE
            self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._phase() in (Phase.OPENING, Phase.LIVE):
            if self._heard():
                if self._hook is _Hook.FREE:
                    self._hook = _Hook.GIVEN
                    self._send(self._waiting[0])
                return
            self._waiting.popleft()
            self._unheard()
            self._taken()
