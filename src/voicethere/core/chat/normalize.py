"""What the store fills in and puts in order when an action is dispatched, so that reducers stay pure.

The only place that does: an error's id, time, words and recoverability; whole counts; the time of a stream's
start; trimmed names and suggestions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from voicethere.core.chat.actions import Action
from voicethere.core.chat.errors import ChatErrorRecord, default_message, default_recoverable
from voicethere.core.chat.session_actions import (
    AddConversationUsage,
    ErrorDraft,
    MarkStreamStart,
    PushError,
    SetError,
    SetModelName,
    UpdateStreamTokens,
)
from voicethere.core.chat.timeline_actions import ConsumeSuggestions, UpsertSuggestions
from voicethere.core.ports import Clock
from voicethere.errors.bounds import DEFAULT_BOUNDS, cut_end, sanitise

_MAX_LABEL_CHARS = 200
AnAction = TypeVar("AnAction", bound=Action)


class Normalizer:
    """Completes actions with the time of `clock`, ids of `new_id` and the store's settings."""

    def __init__(self, clock: Clock, new_id: Callable[[], str], duplicate_window_ms: int) -> None:
        self._now = clock.now
        self._new_id = new_id
        self._duplicate_window_ms = duplicate_window_ms

    def __call__(self, action: Action) -> Action:
        """The action with nothing left open: itself where nothing was."""
        if isinstance(action, PushError):
            return PushError(action.conv_id, self._record(action.error), self._duplicate_window_ms)
        if isinstance(action, SetError):
            return action if action.error is None else SetError(action.conv_id, self._record(action.error))
        if isinstance(action, AddConversationUsage):
            return AddConversationUsage(
                action.conv_id,
                _whole(action.input_tokens),
                _whole(action.output_tokens),
                _whole(action.cached_tokens),
            )
        if isinstance(action, UpdateStreamTokens):
            return UpdateStreamTokens(action.conv_id, _whole(action.tokens))
        if isinstance(action, MarkStreamStart):
            return action if action.at_ms is not None else replace(action, at_ms=self._now_ms())
        if isinstance(action, SetModelName):
            return action if action.name is None else SetModelName(action.conv_id, _label(action.name))
        if isinstance(action, UpsertSuggestions):
            at = self._now_ms() if action.updated_at is None else action.updated_at
            return replace(action, suggestions=distinct(action.suggestions), updated_at=at)
        if isinstance(action, ConsumeSuggestions):
            return action if action.at is not None else replace(action, at=self._now_ms())
        return action

    def _record(self, error: ErrorDraft | ChatErrorRecord) -> ChatErrorRecord:
        if isinstance(error, ChatErrorRecord):  # dispatched a second time: complete already
            return error
        message = (error.message or "").strip()
        if not message:
            message = default_message(error.kind, error.stage)
        elif not message.isprintable():
            message = sanitise(message)
        return ChatErrorRecord(
            error.id or self._new_id(),
            error.kind,
            error.stage,
            cut_end(message, DEFAULT_BOUNDS.message_chars),
            default_recoverable(error.kind, error.status) if error.recoverable is None else error.recoverable,
            self._now_ms() if error.at is None else error.at,
            None if error.source is None else _label(error.source),
            None if error.code is None else _label(error.code),
            error.status,
            error.details,
        )

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


def _whole(number: float) -> int:
    return max(0, int(number))


def _label(text: str) -> str | None:
    # str(): an enum's member is kept as the plain text that it stands for.
    trimmed = str(text).strip()
    if not trimmed.isprintable():
        trimmed = sanitise(trimmed)
    return cut_end(trimmed, _MAX_LABEL_CHARS) or None
