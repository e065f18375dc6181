"""What the metadata of an `llm.*` event says, and what follows from it. Pure numbers.

Whatever is not as the contract wants it is left out, field by field: metadata is never a reason to fail.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from voicethere.core.chat.state import TurnStats

_MOST = 2**53 - 1


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens, each as far as it is known."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class LlmMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What of an event's metadata means something here. `usage` is None where nothing of it is known."""

    model: str | None = None
    usage: Usage | None = None
    duration_ms: int | None = None


NO_USAGE = Usage()


def read_metadata(metadata: dict[str, Any] | UnsetType) -> LlmMetadata | None:
    """What an event's metadata says; None where it has none."""
    if metadata is UNSET:
        return None
    model = metadata.get("model")
    return LlmMetadata(
        model=model if isinstance(model, str) and model.strip() else None,
        usage=_usage(metadata.get("usage")),
        duration_ms=_whole(metadata.get("durationMs")),
    )


def stream_tokens(metadata: LlmMetadata, chars: int) -> int:
    """The tokens of a text of so many characters: as reported, else estimated (a quarter, at least 1)."""
    if metadata.usage is not None and metadata.usage.output_tokens is not None:
        return metadata.usage.output_tokens
    return max(1, (chars + 2) // 4)


def turn_stats(metadata: LlmMetadata) -> TurnStats | None:
    """What a turn took; None where neither usage nor a duration is known."""
    usage, duration_ms = metadata.usage, metadata.duration_ms
    if usage is None and duration_ms is None:
        return None
    known = usage or NO_USAGE
    return TurnStats(
        input_tokens=known.input_tokens,
        output_tokens=known.output_tokens,
        cached_tokens=known.cached_tokens,
        cache_creation_input_tokens=known.cache_creation_input_tokens,
        cache_read_input_tokens=known.cache_read_input_tokens,
        duration_ms=duration_ms,
        tokens_per_second=_rate(known.output_tokens, duration_ms),
    )


def growth(before: Usage, now: Usage) -> Usage:
    """What the counts of totals have grown by; what is not known, or has become less, has not grown."""
    return Usage(
        input_tokens=_grown(before.input_tokens, now.input_tokens),
        output_tokens=_grown(before.output_tokens, now.output_tokens),
        cached_tokens=_grown(before.cached_tokens, now.cached_tokens),
    )


def highest(one: Usage, other: Usage) -> Usage:
    """The higher of each count of totals: a report that shrinks and recovers is not counted twice."""
    return Usage(
        input_tokens=max(one.input_tokens or 0, other.input_tokens or 0),
        output_tokens=max(one.output_tokens or 0, other.output_tokens or 0),
        cached_tokens=max(one.cached_tokens or 0, other.cached_tokens or 0),
    )


def _usage(given: object) -> Usage | None:
    if not isinstance(given, dict):
        return None
    usage = Usage(
        input_tokens=_whole(given.get("inputTokens")),
        output_tokens=_whole(given.get("outputTokens")),
        cached_tokens=_whole(given.get("cachedTokens")),
        cache_creation_input_tokens=_whole(given.get("cacheCreationInputTokens")),
        cache_read_input_tokens=_whole(given.get("cacheReadInputTokens")),
    )
    return None if usage == NO_USAGE else usage


def _whole(value: object) -> int | None:
    # JSON has one kind of number: 3.0 is the whole number 3.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        return None
    return value


def _rate(tokens: int | None, duration_ms: int | None) -> float | None:
    if tokens is None or not duration_ms:
        return None
    return math.floor(tokens * 10_000 / duration_ms + 0.5) / 10


def _grown(before: int | None, now: int | None) -> int:
    return max(0, (now or 0) - (before or 0))
