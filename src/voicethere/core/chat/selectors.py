"""Reading the state. For a conversation that does not exist each gives its empty value, always the same.

What is derived (an ordered timeline) is the same object for as long as the conversation has not changed.
"""

from __future__ import annotations

from voicethere.core.chat.entities import TimelineEntity
from voicethere.core.chat.errors import ChatErrorRecord
from voicethere.core.chat.state import (
    EMPTY_SESSION,
    EMPTY_TIMELINE,
    ChatState,
    ConnectionStatus,
    ConversationSession,
    ConversationTimeline,
    TurnStats,
)
from voicethere.core.chat.waiting import is_unanswered, users_message


def select_last_error(state: ChatState, conv_id: str) -> str | None:
    """The current error's message."""
    return _session(state, conv_id).last_error


def select_current_error(state: ChatState, conv_id: str) -> ChatErrorRecord | None:
    """The error that is current."""
    return _session(state, conv_id).current_error


def select_error_history(state: ChatState, conv_id: str) -> tuple[ChatErrorRecord, ...]:
    """The newest 20 recorded errors, oldest first."""
    return _session(state, conv_id).error_history


def select_has_recoverable_error(state: ChatState, conv_id: str) -> bool:
    """Whether an error is current for which trying again may help."""
    error = _session(state, conv_id).current_error
    return error is not None and error.recoverable is True


def select_connection_status(state: ChatState, conv_id: str) -> ConnectionStatus:
    """How the socket is; `idle` where there was none."""
    return _session(state, conv_id).connection_status


def select_is_streaming(state: ChatState, conv_id: str) -> bool:
    """Whether a reply is coming in."""
    return _session(state, conv_id).is_streaming


def select_model_name(state: ChatState, conv_id: str) -> str | None:
    """The model that answers, where it is known."""
    return _session(state, conv_id).model_name


def select_current_turn_stats(state: ChatState, conv_id: str) -> TurnStats | None:
    """What the last turn took."""
    return _session(state, conv_id).turn_stats


def select_stream_start_time(state: ChatState, conv_id: str) -> int | None:
    """When the newest stream began, in epoch milliseconds."""
    return _session(state, conv_id).stream_start_time


def select_stream_output_tokens(state: ChatState, conv_id: str) -> int:
    """How many tokens the newest stream has."""
    return _session(state, conv_id).stream_output_tokens


def select_conversation_cached_tokens(state: ChatState, conv_id: str) -> int:
    """Cached tokens of the whole conversation."""
    return _session(state, conv_id).cached_tokens


def select_conversation_total_tokens(state: ChatState, conv_id: str) -> int:
    """Input, output and cached tokens of the whole conversation."""
    session = _session(state, conv_id)
    return session.input_tokens + session.output_tokens + session.cached_tokens


def select_timeline_entities(state: ChatState, conv_id: str) -> tuple[TimelineEntity, ...]:
    """All entities, in order."""
    return _timeline(state, conv_id).entities


def select_renderable_timeline_entities(state: ChatState, conv_id: str) -> tuple[TimelineEntity, ...]:
    """All entities but suggestions, in order."""
    return _timeline(state, conv_id).renderable


def select_timeline_entity_by_id(state: ChatState, conv_id: str, entity_id: str) -> TimelineEntity | None:
    """One entity, or None."""
    slot = _timeline(state, conv_id).slots.get(entity_id)
    return None if slot is None else slot.entity


def select_suggestions(state: ChatState, conv_id: str) -> tuple[str, ...]:
    """What to suggest: the assistant's before the starters; starters only while nothing else is there."""
    return _timeline(state, conv_id).suggestions


def select_should_show_pending_ai_placeholder(state: ChatState, window_id: str, conv_id: str) -> bool:
    """Whether "the assistant is thinking" belongs in this window: see `actions.begin_awaiting_ai`."""
    window = state.chat_window.get(window_id)
    if window is None or window.conv_id != conv_id:
        return False
    if _session(state, conv_id).connection_status is ConnectionStatus.ERROR:
        return False
    timeline = _timeline(state, conv_id)
    return users_message(timeline, window) is not None and is_unanswered(timeline, window)


def select_conversation_ids(state: ChatState) -> tuple[str, ...]:
    """The ids of all conversations that have a session or a timeline, sorted."""
    if not state.chat_session and not state.timeline:
        return ()
    return tuple(sorted({*state.chat_session, *state.timeline}))


def _session(state: ChatState, conv_id: str) -> ConversationSession:
    # Indexed: `get` of this map takes twice as long, and most conversations that are asked for exist.
    try:
        return state.chat_session[conv_id]
    except KeyError:
        return EMPTY_SESSION


def _timeline(state: ChatState, conv_id: str) -> ConversationTimeline:
    try:
        return state.timeline[conv_id]
    except KeyError:
        return EMPTY_TIMELINE
