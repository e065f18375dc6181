"""The next state after each session action. Pure: no clock, no ids, no I/O; the old state never changes.

A conversation's entry is made by the first action that says something of it. Clearing makes none.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from voicethere.core.chat.errors import MAX_ERROR_HISTORY, REPEATS, ChatErrorRecord
from voicethere.core.chat.session_actions import (
    AddConversationUsage,
    ClearConversationSession,
    ClearError,
    ErrorDraft,
    MarkStreamStart,
    PushError,
    ResetSession,
    SetConnectionStatus,
    SetError,
    SetIsStreaming,
    SetModelName,
    SetTurnStats,
    UpdateStreamTokens,
)
from voicethere.core.chat.state import EMPTY_SESSION, ChatState, ConversationSession


def set_connection_status(state: ChatState, action: SetConnectionStatus) -> ChatState:
    return _with(state, action.conv_id, connection_status=action.status)


def set_is_streaming(state: ChatState, action: SetIsStreaming) -> ChatState:
    return _with(state, action.conv_id, is_streaming=action.is_streaming)


def set_model_name(state: ChatState, action: SetModelName) -> ChatState:
    return _with(state, action.conv_id, model_name=action.name)


def set_turn_stats(state: ChatState, action: SetTurnStats) -> ChatState:
    return _with(state, action.conv_id, turn_stats=action.stats)


def add_conversation_usage(state: ChatState, action: AddConversationUsage) -> ChatState:
    known = state.chat_session.get(action.conv_id, EMPTY_SESSION)
    return _with(
        state,
        action.conv_id,
        input_tokens=known.input_tokens + action.input_tokens,
        output_tokens=known.output_tokens + action.output_tokens,
        cached_tokens=known.cached_tokens + action.cached_tokens,
    )


def mark_stream_start(state: ChatState, action: MarkStreamStart) -> ChatState:
    return _with(
        state, action.conv_id, stream_start_time=action.at_ms, stream_output_tokens=0, current_error=None
    )


def update_stream_tokens(state: ChatState, action: UpdateStreamTokens) -> ChatState:
    return _with(state, action.conv_id, stream_output_tokens=action.tokens)


def set_error(state: ChatState, action: SetError) -> ChatState:
    if action.error is None:
        return _without_error(state, action.conv_id)
    record = action.error
    known = state.chat_session.get(action.conv_id, EMPTY_SESSION)
    if known.current_error is record:
        return state
    return _put(state, action.conv_id, replace(known, current_error=record))


def push_error(state: ChatState, action: PushError) -> ChatState:
    record, conv_id, sessions = action.error, action.conv_id, state.chat_session
    try:
        known = sessions[conv_id]
    except KeyError:
        known = EMPTY_SESSION
    history = known.error_history
    # The message tells most errors apart: looked at first, and here.
    if history and history[-1].message == record.message and _repeats(history[-1], record, action):
        record = _counted(history[-1])
        history = (*history[:-1], record)
    else:
        # Of 20 the newest 19 stay, and all of fewer. Added, because unpacking would make a list in between.
        history = history[1 - MAX_ERROR_HISTORY :] + (record,)  # noqa: RUF005
    session = replace(known, current_error=record, error_history=history)
    return ChatState(sessions.set(conv_id, session), state.timeline, state.chat_window)


def refuse_draft(state: ChatState, action: ErrorDraft) -> ChatState:
    """Says who completes an error.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        "the error has no id and no time yet: dispatch the action on a ChatStore, which fills them in"
    )


def clear_error(state: ChatState, action: ClearError) -> ChatState:
    return _without_error(state, action.conv_id)


def reset_session(state: ChatState, action: ResetSession) -> ChatState:
    if state.chat_session.get(action.conv_id) == EMPTY_SESSION:
        return state
    return _put(state, action.conv_id, EMPTY_SESSION)


def clear_conversation_session(state: ChatState, action: ClearConversationSession) -> ChatState:
    if action.conv_id not in state.chat_session:
        return state
    return ChatState(state.chat_session.delete(action.conv_id), state.timeline, state.chat_window)


def _put(state: ChatState, conv_id: str, session: ConversationSession) -> ChatState:
    return ChatState(state.chat_session.set(conv_id, session), state.timeline, state.chat_window)


def _with(state: ChatState, conv_id: str, **fields: Any) -> ChatState:
    known = state.chat_session.get(conv_id)
    if known is None:
        return _put(state, conv_id, replace(EMPTY_SESSION, **fields))
    for name, value in fields.items():
        if getattr(known, name) != value:
            return _put(state, conv_id, replace(known, **fields))
    return state


def _without_error(state: ChatState, conv_id: str) -> ChatState:
    known = state.chat_session.get(conv_id)
    if known is None or known.current_error is None:
        return state
    return _put(state, conv_id, replace(known, current_error=None))


def _repeats(newest: ChatErrorRecord, record: ChatErrorRecord, action: PushError) -> bool:
    return (
        action.duplicate_window_ms > 0
        and newest.kind is record.kind
        and newest.code == record.code
        and abs(record.at - newest.at) <= action.duplicate_window_ms
    )


def _counted(record: ChatErrorRecord) -> ChatErrorRecord:
    details = record.details or {}
    before = details.get(REPEATS, 0)
    # A producer may have put anything under our key.
    count = before + 1 if type(before) is int and before >= 0 else 1
    return replace(record, details={**details, REPEATS: count})
