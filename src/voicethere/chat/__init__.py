"""The client of chat conversations: their state, errors first, and the sockets and requests that feed it.

Needs the extra `chat`. Example:

    >>> store = ChatStore()
    >>> unsubscribe = store.subscribe(lambda state, action: None)
    >>> store.dispatch(actions.push_error("conv-1", kind="ws_error", stage="stream"))
    >>> selectors.select_has_recoverable_error(store.state, "conv-1")
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from voicethere.chat.event_log import EventLog, EventLogEntry, LifecyclePhase
from voicethere.chat.store import ChatStore
from voicethere.core.chat import actions, selectors
from voicethere.core.chat.entities import TimelineEntity
from voicethere.core.chat.errors import ChatErrorKind, ChatErrorRecord, ChatErrorStage
from voicethere.core.chat.registry import SemContext, SemRegistry
from voicethere.wire.sem import SemEvent

if TYPE_CHECKING:
    from voicethere.chat.conversation import Conversation
    from voicethere.chat.conversations import ConversationManager
    from voicethere.chat.http import ChatHttpError
    from voicethere.chat.limits import ChatLimits, ChatTimings
    from voicethere.chat.reconnecting import Reconnecting

__all__ = [
    "ChatStore",
    "actions",
    "selectors",
    "ConversationManager",
    "Conversation",
    "ChatHttpError",
    "ChatLimits",
    "ChatTimings",
    "Reconnecting",
    "ChatErrorRecord",
    "ChatErrorKind",
    "ChatErrorStage",
    "TimelineEntity",
    "SemRegistry",
    "SemContext",
    "SemEvent",
    "EventLog",
    "EventLogEntry",
    "LifecyclePhase",
]

# Sockets and HTTP take ten times as long to import as the state, which is of use without them.
_ON_DEMAND = {
    "Conversation": "conversation",
    "ConversationManager": "conversations",
    "ChatHttpError": "http",
    "ChatLimits": "limits",
    "ChatTimings": "limits",
    "Reconnecting": "reconnecting",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ON_DEMAND[name]}"), name)
