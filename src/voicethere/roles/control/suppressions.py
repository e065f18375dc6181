"""What was counted and not stored, put together for people: one line for each code."""

from __future__ import annotations

from collections.abc import Sequence

from voicethere.adapters.store.records import Suppression
from voicethere.wire.control_plane import SuppressedErrors


def by_code(suppressions: Sequence[Suppression]) -> list[SuppressedErrors]:
    """One entry for each code, the most frequent first: its count in all, from the first to the last."""
    found: dict[str, SuppressedErrors] = {}
    for one in suppressions:
        before = found.get(one.code)
        found[one.code] = SuppressedErrors(
            code=one.code,
            count=one.count + (before.count if before else 0),
            # Wire times have one length and one zone: they are in the order of their text.
            first_at=min(one.first_at, before.first_at) if before else one.first_at,
            last_at=max(one.last_at, before.last_at) if before else one.last_at,
        )
    return sorted(found.values(), key=lambda entry: (-entry.count, entry.code))
