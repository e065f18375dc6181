"""The immutable state of a chat client: sessions, timelines and windows of any number of conversations.

Only shapes and what follows from them; `reducers` makes the next state, `selectors` reads. The maps are
persistent (HAMT): a changed conversation costs the same beside one other and beside ten thousand.
"""

from __future__ import annotations

import enum
from functools import cached_property

import msgspec
from immutables import Map

from voicethere.core.chat.entities import SUGGESTIONS_KIND, TimelineEntity
from voicethere.core.chat.errors import ChatErrorRecord

STARTER = "starter"
"""The `source` of suggestions that are there before anyone has spoken."""


class ConnectionStatus(enum.StrEnum):
    """How a conversation's socket is."""

    IDLE = "idle"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"
    ERROR = "error"


class TurnStats(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What one turn of the assistant took, as far as it is known. Tokens; milliseconds; tokens per second."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    duration_ms: int | None = None
    tokens_per_second: float | None = None


class ConversationSession(msgspec.Struct, frozen=True, gc=False):
    """One conversation's session. `stream_start_time` is in epoch milliseconds; history: oldest first."""

    connection_status: ConnectionStatus = ConnectionStatus.IDLE
    is_streaming: bool = False
    model_name: str | None = None
    turn_stats: TurnStats | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    stream_start_time: int | None = None
    stream_output_tokens: int = 0
    current_error: ChatErrorRecord | None = None
    error_history: tuple[ChatErrorRecord, ...] = ()

    @property
    def last_error(self) -> str | None:
        """The current error's message: derived, so that the two can never differ."""
        return None if self.current_error is None else self.current_error.message


class Slot(msgspec.Struct, frozen=True, gc=False):
    """An entity's place: `position` orders the timeline, `arrived` counts entities as they first came."""

    position: int
    arrived: int
    entity: TimelineEntity


class ConversationTimeline(msgspec.Struct, frozen=True, dict=True):
    """One conversation's entities by id; the next position and the next number of an arrival."""

    slots: Map[str, Slot] = Map()
    end: int = 0
    arrivals: int = 0

    # What is derived is computed when it is first asked for and kept: the same tuple for the same state.

    @cached_property
    def entities(self) -> tuple[TimelineEntity, ...]:
        """All entities in the timeline's order."""
        return tuple(slot.entity for slot in sorted(self.slots.values(), key=_position))

    @cached_property
    def renderable(self) -> tuple[TimelineEntity, ...]:
        """All but the suggestions, in order."""
        return tuple(entity for entity in self.entities if entity.kind != SUGGESTIONS_KIND)

    @cached_property
    def arrivals_of_user(self) -> tuple[int, ...]:
        """The arrival numbers of the user's entities, in order."""
        return tuple(sorted(slot.arrived for slot in self.slots.values() if slot.entity.is_of_user))

    @cached_property
    def newest_of_others(self) -> int:
        """The arrival number of the newest entity that neither the user made nor is a suggestion; or -1."""
        return max(
            (
                slot.arrived
                for slot in self.slots.values()
                if slot.entity.kind != SUGGESTIONS_KIND and not slot.entity.is_of_user
            ),
            default=-1,
        )

    @cached_property
    def suggestions(self) -> tuple[str, ...]:
        """What to suggest: the assistant's newest; or starters, while nothing else is there."""
        starters: tuple[str, ...] = ()
        newest: tuple[str, ...] = ()
        for entity in self.entities:
            if entity.kind != SUGGESTIONS_KIND or entity.props.get("consumedAt") is not None:
                continue
            items = suggestion_items(entity)
            if entity.props.get("source") == STARTER:
                starters = items or starters
            else:
                newest = items or newest
        return newest or (() if self.renderable else starters)


class WindowState(msgspec.Struct, frozen=True, gc=False):
    """What one window shows. `awaiting`: it waits, and its user's message has this arrival number or more."""

    conv_id: str
    awaiting: int | None = None


class ChatState(msgspec.Struct, frozen=True, gc=False):
    """The whole state: three slices, sessions and timelines by conversation id, windows by window id."""

    chat_session: Map[str, ConversationSession] = Map()
    timeline: Map[str, ConversationTimeline] = Map()
    chat_window: Map[str, WindowState] = Map()


EMPTY_SESSION = ConversationSession()
EMPTY_TIMELINE = ConversationTimeline()
EMPTY_STATE = ChatState()


def suggestion_items(entity: TimelineEntity) -> tuple[str, ...]:
    """The suggestions in an entity of that kind, whatever else a server put beside them."""
    items = entity.props.get("items")
    return tuple(item for item in items if isinstance(item, str)) if isinstance(items, list) else ()


def _position(slot: Slot) -> int:
    return slot.position
