"""What the store fills in and puts in order when an action is dispatched, so that reducers stay pure.

The only place that does: an error's id, time, words and recoverability; whole counts; the time of a stream's
start; trimmed names and suggestions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from voicethere.core.chat.actions import Action
from voicethere.core.chat.errors import ChatErrorRecord, default_message, default_recoverable
from voicethere.core.chat.session_actions import (
    AddConversationUsage,
    ErrorDraft,
    MarkStreamStart,
    PushError,
    PushErrorDraft,
    SetError,
    SetErrorDraft,
    SetModelName,
    UpdateStreamTokens,
)
from voicethere.core.chat.timeline_actions import ConsumeSuggestions, UpsertSuggestions
from voicethere.errors.bounds import DEFAULT_BOUNDS, cut_end, sanitise

_MAX_MESSAGE_CHARS = DEFAULT_BOUNDS.message_chars
_MAX_LABEL_CHARS = 200


class Normalizer:
    """Completes actions with the time of `now` (epoch seconds), ids of `new_id` and the store's settings."""

    def __init__(self, now: Callable[[], float], new_id: Callable[[], str], duplicate_window_ms: int) -> None:
        self._now = now
        self._new_id = new_id
        self._duplicate_window_ms = duplicate_window_ms
        self.completers: Mapping[type, Callable[[Any], Action]] = {
            PushErrorDraft: self._push_error,
            PushError: self._push_error_again,
            SetErrorDraft: self._set_error,
            AddConversationUsage: _add_conversation_usage,
            UpdateStreamTokens: _update_stream_tokens,
            MarkStreamStart: self._mark_stream_start,
            SetModelName: _set_model_name,
            UpsertSuggestions: self._upsert_suggestions,
            ConsumeSuggestions: self._consume_suggestions,
        }
        """What completes an action of each type that can leave something open."""

    def __call__(self, action: Action) -> Action:
        """The action with nothing left open: itself where nothing was."""
        complete = self.completers.get(type(action))
        return action if complete is None else complete(action)

    def _push_error(self, draft: ErrorDraft) -> PushError:
        kind, status, recoverable, at = draft.kind, draft.status, draft.recoverable, draft.at
        message = draft.message
        if message is None or not (message := message.strip()):
            message = default_message(kind, draft.stage)
        elif len(message) > _MAX_MESSAGE_CHARS or not message.isprintable():
            message = cut_end(sanitise(message), _MAX_MESSAGE_CHARS)
        record = ChatErrorRecord(
            draft.id or self._new_id(),
            kind,
            draft.stage,
            message,
            int(self._now() * 1000) if at is None else at,
            default_recoverable(kind, status) if recoverable is None else recoverable,
            None if draft.source is None else _label(draft.source),
            None if draft.code is None else _label(draft.code),
            status,
            draft.details,
        )
        return PushError(draft.conv_id, record, self._duplicate_window_ms)

    def _push_error_again(self, action: PushError) -> PushError:
        # It was completed before, by a store that may have another window.
        return PushError(action.conv_id, action.error, self._duplicate_window_ms)

    def _set_error(self, draft: SetErrorDraft) -> SetError:
        return SetError(draft.conv_id, self._push_error(draft).error)

    def _mark_stream_start(self, action: MarkStreamStart) -> MarkStreamStart:
        return action if action.at_ms is not None else MarkStreamStart(action.conv_id, self._now_ms())

    def _upsert_suggestions(self, action: UpsertSuggestions) -> UpsertSuggestions:
        at = self._now_ms() if action.updated_at is None else action.updated_at
        return replace(action, suggestions=distinct(action.suggestions), updated_at=at)

    def _consume_suggestions(self, action: ConsumeSuggestions) -> ConsumeSuggestions:
        return action if action.at is not None else replace(action, at=self._now_ms())

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def distinct(suggestions: tuple[str, ...]) -> tuple[str, ...]:
    """Trimmed, without blanks, and each once without regard to case: the first spelling stays."""
    found: dict[str, str] = {}
    for text in suggestions:
        trimmed = text.strip()
        if trimmed:
            found.setdefault(trimmed.casefold(), trimmed)
    return tuple(found.values())


def _add_conversation_usage(action: AddConversationUsage) -> AddConversationUsage:
    return AddConversationUsage(
        action.conv_id,
        _whole(action.input_tokens),
        _whole(action.output_tokens),
        _whole(action.cached_tokens),
    )


def _update_stream_tokens(action: UpdateStreamTokens) -> UpdateStreamTokens:
    return UpdateStreamTokens(action.conv_id, _whole(action.tokens))


def _set_model_name(action: SetModelName) -> SetModelName:
    return action if action.name is None else SetModelName(action.conv_id, _label(action.name))


def _whole(number: float) -> int:
    return max(0, int(number))


def _label(text: str) -> str | None:
    # str(): an enum's member is kept as the plain text that it stands for.
    trimmed = str(text).strip()
    if not trimmed.isprintable():
        trimmed = sanitise(trimmed)
    return cut_end(trimmed, _MAX_LABEL_CHARS) or None
