"""The next state after each window action. Pure."""

from __future__ import annotations

from voicethere.core.chat.state import EMPTY_TIMELINE, ChatState, WindowState
from voicethere.core.chat.waiting import begins_at
from voicethere.core.chat.window_actions import (
    BeginAwaitingAi,
    ClearAwaitingAi,
    ClearWindowState,
    SetWindowConversation,
)


def set_window_conversation(state: ChatState, action: SetWindowConversation) -> ChatState:
    known = state.chat_window.get(action.window_id)
    if known is not None and known.conv_id == action.conv_id:
        return state
    return _put(state, action.window_id, WindowState(action.conv_id))


def begin_awaiting_ai(state: ChatState, action: BeginAwaitingAi) -> ChatState:
    awaiting = begins_at(state.timeline.get(action.conv_id, EMPTY_TIMELINE))
    return _put(state, action.window_id, WindowState(action.conv_id, awaiting))


def clear_awaiting_ai(state: ChatState, action: ClearAwaitingAi) -> ChatState:
    known = state.chat_window.get(action.window_id)
    if known is None or known.awaiting is None:
        return state
    return _put(state, action.window_id, WindowState(known.conv_id))


def clear_window_state(state: ChatState, action: ClearWindowState) -> ChatState:
    if action.window_id not in state.chat_window:
        return state
    return ChatState(state.chat_session, state.timeline, state.chat_window.delete(action.window_id))


def _put(state: ChatState, window_id: str, window: WindowState) -> ChatState:
    if state.chat_window.get(window_id) == window:
        return state
    return ChatState(state.chat_session, state.timeline, state.chat_window.set(window_id, window))
