"""Every action of the chat store: one function each, the conversation's (or window's) id first.

    store.dispatch(actions.push_error("conv-1", kind="http_error", stage="send", status=500))

A wrong argument is refused here, by a `TypeError` or `ValueError` that names it.
"""

from voicethere.core.chat.session_actions import (
    AddConversationUsage,
    ClearConversationSession,
    ClearError,
    MarkStreamStart,
    PushError,
    PushErrorDraft,
    ResetSession,
    SetConnectionStatus,
    SetError,
    SetErrorDraft,
    SetIsStreaming,
    SetModelName,
    SetTurnStats,
    UpdateStreamTokens,
    add_conversation_usage,
    clear_conversation_session,
    clear_error,
    mark_stream_start,
    push_error,
    reset_session,
    set_connection_status,
    set_error,
    set_is_streaming,
    set_model_name,
    set_stream_error,
    set_turn_stats,
    update_stream_tokens,
)
from voicethere.core.chat.timeline_actions import (
    AddEntity,
    ApplySnapshot,
    ClearConversation,
    ConsumeSuggestions,
    MergeSnapshot,
    RekeyEntity,
    UpsertEntity,
    UpsertSuggestions,
    add_entity,
    apply_snapshot,
    clear_conversation,
    consume_suggestions,
    merge_snapshot,
    rekey_entity,
    upsert_entity,
    upsert_suggestions,
)
from voicethere.core.chat.window_actions import (
    BeginAwaitingAi,
    ClearAwaitingAi,
    ClearWindowState,
    SetWindowConversation,
    begin_awaiting_ai,
    clear_awaiting_ai,
    clear_window_state,
    set_window_conversation,
)

SessionAction = (
    SetConnectionStatus
    | SetIsStreaming
    | SetModelName
    | SetTurnStats
    | AddConversationUsage
    | MarkStreamStart
    | UpdateStreamTokens
    | SetError
    | SetErrorDraft
    | PushError
    | PushErrorDraft
    | ClearError
    | ResetSession
    | ClearConversationSession
)
TimelineAction = (
    AddEntity
    | UpsertEntity
    | RekeyEntity
    | ApplySnapshot
    | MergeSnapshot
    | UpsertSuggestions
    | ConsumeSuggestions
    | ClearConversation
)
WindowAction = SetWindowConversation | BeginAwaitingAi | ClearAwaitingAi | ClearWindowState
Action = SessionAction | TimelineAction | WindowAction

__all__ = [
    "set_connection_status",
    "set_is_streaming",
    "set_model_name",
    "set_turn_stats",
    "add_conversation_usage",
    "mark_stream_start",
    "update_stream_tokens",
    "set_error",
    "push_error",
    "clear_error",
    "set_stream_error",
    "reset_session",
    "clear_conversation_session",
    "add_entity",
    "upsert_entity",
    "rekey_entity",
    "apply_snapshot",
    "merge_snapshot",
    "upsert_suggestions",
    "consume_suggestions",
    "clear_conversation",
    "set_window_conversation",
    "begin_awaiting_ai",
    "clear_awaiting_ai",
    "clear_window_state",
    "Action",
    "SessionAction",
    "TimelineAction",
    "WindowAction",
]
