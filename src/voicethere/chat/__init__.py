"""The state of chat conversations, their errors first: typed, per conversation, never lost in a string.

Needs the extra `chat`. Example:

    >>> store = ChatStore()
    >>> unsubscribe = store.subscribe(lambda state, action: None)
    >>> store.dispatch(actions.push_error("conv-1", kind="ws_error", stage="stream"))
    >>> selectors.select_has_recoverable_error(store.state, "conv-1")
    True
"""

from voicethere.chat.event_log import EventLog, EventLogEntry, LifecyclePhase
from voicethere.chat.store import ChatStore
from voicethere.core.chat import actions, selectors
from voicethere.core.chat.entities import TimelineEntity
from voicethere.core.chat.errors import ChatErrorKind, ChatErrorRecord, ChatErrorStage
from voicethere.core.chat.registry import SemContext, SemRegistry
from voicethere.wire.sem import SemEvent

__all__ = [
    "ChatStore",
    "actions",
    "selectors",
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
