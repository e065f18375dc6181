"""What can happen to a conversation's session: its connection, its stream, its usage, its errors.

Each function checks its arguments and makes an action. What is left out (an error's id, time, words) the
store fills in when the action is dispatched; nothing here reads a clock.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec.structs import asdict, astuple

from voicethere.core.chat import checks
from voicethere.core.chat.errors import ChatErrorKind, ChatErrorRecord, ChatErrorStage
from voicethere.core.chat.state import ConnectionStatus, TurnStats
from voicethere.errors.bounds import DEFAULT_BOUNDS, fit_object

_KINDS = {kind.value: kind for kind in ChatErrorKind}
_STAGES = {stage.value: stage for stage in ChatErrorStage}
_STATS = {
    name: encoded
    for own, encoded in zip(TurnStats.__struct_fields__, TurnStats.__struct_encode_fields__, strict=True)
    for name in (own, encoded)
}
_STATUSES = {status.value: status for status in ConnectionStatus}
STREAM_ERROR_SOURCE = "set_stream_error"


class ErrorDraft(msgspec.Struct, frozen=True, gc=False):
    """An error as its producer describes it; None is for the store to fill in. `at` is in epoch ms."""

    conv_id: str
    kind: ChatErrorKind
    stage: ChatErrorStage
    message: str | None = None
    source: str | None = None
    code: str | None = None
    status: int | None = None
    recoverable: bool | None = None
    at: int | None = None
    details: dict[str, Any] | None = None
    id: str | None = None


class PushErrorDraft(ErrorDraft, frozen=True, gc=False):
    """The store makes a `PushError` of it."""


class SetErrorDraft(ErrorDraft, frozen=True, gc=False):
    """The store makes a `SetError` of it."""


class SetConnectionStatus(msgspec.Struct, frozen=True, gc=False):
    """The socket is in another state."""

    conv_id: str
    status: ConnectionStatus


class SetIsStreaming(msgspec.Struct, frozen=True):
    """A reply is (or is no longer) coming in."""

    conv_id: str
    is_streaming: bool


class SetModelName(msgspec.Struct, frozen=True):
    """The model that answers is known."""

    conv_id: str
    name: str | None


class SetTurnStats(msgspec.Struct, frozen=True):
    """What the last turn took."""

    conv_id: str
    stats: TurnStats | None


class AddConversationUsage(msgspec.Struct, frozen=True):
    """More tokens were used. As given: the store makes them whole and non-negative."""

    conv_id: str
    input_tokens: int | float
    output_tokens: int | float
    cached_tokens: int | float


class MarkStreamStart(msgspec.Struct, frozen=True):
    """A stream began; `at_ms` is None until the store fills it in."""

    conv_id: str
    at_ms: int | None


class UpdateStreamTokens(msgspec.Struct, frozen=True):
    """The stream has so many tokens by now. As given: the store makes it whole and non-negative."""

    conv_id: str
    tokens: int | float


class SetError(msgspec.Struct, frozen=True, gc=False):
    """An error is current (or, with None, none is); the history stays as it is."""

    conv_id: str
    error: ChatErrorRecord | None


class PushError(msgspec.Struct, frozen=True, gc=False):
    """An error is current and goes into the history.

    A repeat within `duplicate_window_ms` (the store sets it) raises a count instead of adding a record.
    """

    conv_id: str
    error: ChatErrorRecord
    duplicate_window_ms: int = 0


class ClearError(msgspec.Struct, frozen=True):
    """No error is current any more."""

    conv_id: str


class ResetSession(msgspec.Struct, frozen=True):
    """The session is as new."""

    conv_id: str


class ClearConversationSession(msgspec.Struct, frozen=True):
    """The session is gone."""

    conv_id: str


COMPLETE: Mapping[type, type] = MappingProxyType({PushErrorDraft: PushError, SetErrorDraft: SetError})
"""What a store makes of an action that is a draft, by type."""


def set_connection_status(conv_id: str, status: ConnectionStatus | str) -> SetConnectionStatus:
    """`status`: `idle`, `connecting`, `connected`, `closed`, `error`.

    Raises:
        ValueError: none of these.
    """
    try:
        known = _STATUSES[status]
    except (KeyError, TypeError):
        known = checks.choice(status, ConnectionStatus, "connection status")
    return SetConnectionStatus(_conv(conv_id), known)


def set_is_streaming(conv_id: str, is_streaming: bool) -> SetIsStreaming:
    """Whether a reply is coming in."""
    return SetIsStreaming(_conv(conv_id), checks.flag(is_streaming, "is_streaming"))


def set_model_name(conv_id: str, name: str | None) -> SetModelName:
    """The name of the model that answers."""
    return SetModelName(_conv(conv_id), checks.optional_text(name, "name"))


def set_turn_stats(conv_id: str, stats: TurnStats | Mapping[str, Any] | None) -> SetTurnStats:
    """`stats` as `TurnStats`, or as a mapping with its names (`input_tokens`, or `inputTokens` as in frames).

    Raises:
        TypeError: something else, or values of wrong types.
        ValueError: an unknown name, or a value that is negative or not finite.
    """
    if stats is None:
        return SetTurnStats(_conv(conv_id), None)
    if not isinstance(stats, (TurnStats, Mapping)):
        raise TypeError(f"stats must be TurnStats, a mapping or None, not {type(stats).__name__}")
    given = asdict(stats) if isinstance(stats, TurnStats) else stats
    unknown = [name for name in given if name not in _STATS]
    if unknown:
        raise ValueError(f"stats: unknown name {unknown[0]!r}: must be one of {', '.join(sorted(_STATS))}")
    try:
        made = msgspec.convert({_STATS[name]: value for name, value in given.items()}, TurnStats)
    except msgspec.ValidationError as error:
        raise TypeError(f"stats: {error}") from error
    for name in made.__struct_fields__:
        value = getattr(made, name)
        if value is not None and checks.number(value, f"stats.{name}") < 0:
            raise ValueError(f"stats.{name} must not be negative")
    return SetTurnStats(_conv(conv_id), made)


def add_conversation_usage(
    conv_id: str, *, input_tokens: float = 0, output_tokens: float = 0, cached_tokens: float = 0
) -> AddConversationUsage:
    """Adds to the conversation's totals. Fractions are cut, and what is negative counts as 0."""
    return AddConversationUsage(
        _conv(conv_id),
        checks.number(input_tokens, "input_tokens"),
        checks.number(output_tokens, "output_tokens"),
        checks.number(cached_tokens, "cached_tokens"),
    )


def mark_stream_start(conv_id: str, at_ms: float | None = None) -> MarkStreamStart:
    """A stream began, now or at `at_ms` (epoch milliseconds)."""
    return MarkStreamStart(_conv(conv_id), None if at_ms is None else checks.time_ms(at_ms, "at_ms"))


def update_stream_tokens(conv_id: str, tokens: float) -> UpdateStreamTokens:
    """The stream has `tokens` by now. A fraction is cut, and what is negative counts as 0."""
    return UpdateStreamTokens(_conv(conv_id), checks.number(tokens, "tokens"))


def set_error(
    conv_id: str,
    error: ChatErrorRecord | None = None,
    *,
    kind: ChatErrorKind | str | None = None,
    stage: ChatErrorStage | str | None = None,
    message: str | None = None,
    source: str | None = None,
    code: str | None = None,
    status: int | None = None,
    recoverable: bool | None = None,
    at: float | None = None,
    details: Mapping[str, Any] | None = None,
    id: str | None = None,
) -> SetErrorDraft | SetError:
    """Make an error current without recording it: a record, or its fields; with neither, clear it.

    Raises:
        TypeError: a field of a wrong type.
        ValueError: an unknown kind or stage (the words list the valid ones), or a value out of bounds.
    """
    if error is None and kind is None and stage is None:
        given = (message, source, code, status, recoverable, at, details, id)
        if any(value is not None for value in given):
            raise ValueError("an error needs a kind and a stage")
        return SetError(_conv(conv_id), None)
    draft = push_error(
        conv_id,
        error,
        kind=kind,
        stage=stage,
        message=message,
        source=source,
        code=code,
        status=status,
        recoverable=recoverable,
        at=at,
        details=details,
        id=id,
    )
    return SetErrorDraft(*astuple(draft))


def push_error(
    conv_id: str,
    error: ChatErrorRecord | None = None,
    *,
    kind: ChatErrorKind | str | None = None,
    stage: ChatErrorStage | str | None = None,
    message: str | None = None,
    source: str | None = None,
    code: str | None = None,
    status: int | None = None,
    recoverable: bool | None = None,
    at: float | None = None,
    details: Mapping[str, Any] | None = None,
    id: str | None = None,
) -> PushErrorDraft:
    """Make an error current and record it in the history: a record, or its fields.

    Raises:
        TypeError: a field of a wrong type.
        ValueError: an unknown kind or stage (the words list the valid ones), or a value out of bounds.
    """
    if error is not None:
        return _draft_of(conv_id, error)
    # Errors come in storms: what is usual takes one look, here, and words are only made where it is not.
    if type(conv_id) is not str or not 0 < len(conv_id) <= checks.MAX_ID_CHARS:
        conv_id = checks.identifier(conv_id, "conv_id")
    try:
        known_kind, known_stage = _KINDS[kind], _STAGES[stage]  # type: ignore[index]
    except (KeyError, TypeError):
        known_kind = checks.choice(kind, ChatErrorKind, "error kind")
        known_stage = checks.choice(stage, ChatErrorStage, "error stage")
    return PushErrorDraft(
        conv_id,
        known_kind,
        known_stage,
        message if type(message) is str else checks.optional_text(message, "message"),
        None if source is None else checks.optional_text(source, "source"),
        None if code is None else checks.optional_text(code, "code"),
        status if status is None or (type(status) is int and 100 <= status <= 999) else _status(status),
        None if recoverable is None else checks.flag(recoverable, "recoverable"),
        None if at is None else checks.time_ms(at, "at"),
        None if details is None else _details(details),
        None if id is None else checks.identifier(id, "id"),
    )


def clear_error(conv_id: str) -> ClearError:
    """No error is current any more; the history stays."""
    return ClearError(_conv(conv_id))


def set_stream_error(conv_id: str, text: str | None) -> SetErrorDraft | SetError:
    """Deprecated: `set_error` with a kind and a stage says more. Blank text clears the error."""
    warnings.warn(
        "set_stream_error is deprecated: use set_error or push_error, with a kind and a stage",
        DeprecationWarning,
        stacklevel=2,
    )
    text = checks.optional_text(text, "text")
    if text is None or not text.strip():
        return SetError(_conv(conv_id), None)
    kind, stage = ChatErrorKind.RUNTIME_ERROR, ChatErrorStage.UNKNOWN
    return SetErrorDraft(_conv(conv_id), kind, stage, message=text, source=STREAM_ERROR_SOURCE)


def reset_session(conv_id: str) -> ResetSession:
    """Everything of the session as in a new one, its history of errors too."""
    return ResetSession(_conv(conv_id))


def clear_conversation_session(conv_id: str) -> ClearConversationSession:
    """The session's entry is gone."""
    return ClearConversationSession(_conv(conv_id))


def _conv(conv_id: object) -> str:
    if type(conv_id) is str and 0 < len(conv_id) <= checks.MAX_ID_CHARS:
        return conv_id
    return checks.identifier(conv_id, "conv_id")


def _draft_of(conv_id: str, error: object) -> PushErrorDraft:
    if not isinstance(error, ChatErrorRecord):
        raise TypeError(f"error must be a ChatErrorRecord or None, not {type(error).__name__}")
    return push_error(conv_id, **asdict(error))


def _status(status: object) -> int:
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"status must be an HTTP status or None, not {type(status).__name__}")
    if not 100 <= status <= 999:
        raise ValueError("status must be an HTTP status, 100 to 999")
    return status


def _details(details: object) -> dict[str, Any]:
    # Whatever a server sent may be in here: cut visibly rather than refused, or the error itself were lost.
    if not isinstance(details, Mapping):
        raise TypeError(f"details must be a dict or None, not {type(details).__name__}")
    bounds = DEFAULT_BOUNDS
    return fit_object(dict(details), max_bytes=bounds.details_bytes, max_depth=bounds.details_depth)
