"""The next state after any action: which reducer an action's type belongs to.

Pure. Takes actions as `normalize` leaves them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from voicethere.core.chat import session_actions as session
from voicethere.core.chat import session_reducers, timeline_reducers, window_reducers
from voicethere.core.chat import timeline_actions as timeline
from voicethere.core.chat import window_actions as window
from voicethere.core.chat.actions import Action
from voicethere.core.chat.state import ChatState

REDUCERS: Mapping[type, Callable[[ChatState, Any], ChatState]] = MappingProxyType(
    {
        session.SetConnectionStatus: session_reducers.set_connection_status,
        session.SetIsStreaming: session_reducers.set_is_streaming,
        session.SetModelName: session_reducers.set_model_name,
        session.SetTurnStats: session_reducers.set_turn_stats,
        session.AddConversationUsage: session_reducers.add_conversation_usage,
        session.MarkStreamStart: session_reducers.mark_stream_start,
        session.UpdateStreamTokens: session_reducers.update_stream_tokens,
        session.SetError: session_reducers.set_error,
        session.SetErrorDraft: session_reducers.refuse_draft,
        session.PushError: session_reducers.push_error,
        session.PushErrorDraft: session_reducers.refuse_draft,
        session.ClearError: session_reducers.clear_error,
        session.ResetSession: session_reducers.reset_session,
        session.ClearConversationSession: session_reducers.clear_conversation_session,
        timeline.AddEntity: timeline_reducers.add_entity,
        timeline.UpsertEntity: timeline_reducers.upsert_entity,
        timeline.RekeyEntity: timeline_reducers.rekey_entity,
        timeline.ApplySnapshot: timeline_reducers.apply_snapshot,
        timeline.MergeSnapshot: timeline_reducers.merge_snapshot,
        timeline.UpsertSuggestions: timeline_reducers.upsert_suggestions,
        timeline.ConsumeSuggestions: timeline_reducers.consume_suggestions,
        timeline.ClearConversation: timeline_reducers.clear_conversation,
        window.SetWindowConversation: window_reducers.set_window_conversation,
        window.BeginAwaitingAi: window_reducers.begin_awaiting_ai,
        window.ClearAwaitingAi: window_reducers.clear_awaiting_ai,
        window.ClearWindowState: window_reducers.clear_window_state,
    }
)


def reduce(state: ChatState, action: Action) -> ChatState:
    """The next state: `state` itself where the action changes nothing.

    Raises:
        TypeError: `action` is none of the store's.
    """
    reducer = REDUCERS.get(type(action))
    if reducer is None:
        raise TypeError(f"not an action of the chat store: {type(action).__name__}")
    return reducer(state, action)
