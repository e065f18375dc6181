"""What a handler of SEM events is given: the conversation's id, the store, and the streams that run.

Knows nothing of sockets, and nothing of what any event does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from voicethere.core.chat.actions import Action
from voicethere.core.chat.state import ChatState
from voicethere.core.chat.streams import Streams
from voicethere.core.clock import SystemClock
from voicethere.core.ports import Clock
from voicethere.wire.sem import SemEvent


class DispatchingStore(Protocol):
    """The part of `ChatStore` that handlers use."""

    @property
    def state(self) -> ChatState:
        """The newest state."""

    def dispatch(self, action: Action) -> ChatState:
        """Apply an action; the state after it."""


@dataclass(slots=True)
class SemContext:
    """One conversation, as the handlers of its events see it.

    Keep one for as long as the conversation is known, over all its connections: `streams` remembers what each
    message has reported, so that totals grow by differences. `clock` times what came without a time.
    """

    conv_id: str
    store: DispatchingStore
    streams: Streams = field(default_factory=Streams)
    clock: Clock = field(default_factory=SystemClock)

    def now_ms(self) -> int:
        """Now, in epoch milliseconds."""
        return int(self.clock.now() * 1000)


Handler = Callable[[SemContext, SemEvent], object]
"""Carries out one event at once: it may not wait, and what it returns is not used."""
