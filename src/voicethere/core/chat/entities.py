"""One entity of a conversation's timeline, and how two reports of the same entity become one.

Knows the version rules of the contract (sem-chat.md, "Versions"). It does not know the timeline's order.
"""

from __future__ import annotations

from typing import Any

import msgspec

from voicethere.wire.sem import TimelineEntityData, whole_number

SUGGESTIONS_KIND = "suggestions"


class TimelineEntity(msgspec.Struct, frozen=True, gc=False):
    """A message, a log line, suggestions or anything else that a conversation shows in its order.

    Times are epoch milliseconds; a `created_at` of 0 says that none is known. `version` is the conversation's
    counter, or None. `props` is JSON data: treat it as immutable once it is in the state.
    """

    id: str
    kind: str
    created_at: int
    updated_at: int | None = None
    version: int | None = None
    props: dict[str, Any] = {}

    @property
    def is_of_user(self) -> bool:
        """Whether the user made it."""
        return self.props.get("role") == "user"


def entity_of(data: TimelineEntityData, version: int | None) -> TimelineEntity:
    """An entity as it came from a gateway, as of `version` (the upsert's, or its snapshot's)."""
    created_at, updated_at = data.created_at_ms, data.updated_at_ms
    if type(created_at) is not int:
        created_at = whole_number(created_at)
    if type(updated_at) is not int:
        updated_at = whole_number(updated_at)
    return TimelineEntity(
        data.id,
        data.kind,
        created_at if created_at > 0 else 0,
        updated_at if updated_at > 0 else None,
        version if version is not None and version > 0 else None,
        data.props,
    )


def merge(known: TimelineEntity, incoming: TimelineEntity) -> TimelineEntity:
    """What is known of an entity after a report of it: `known` itself where that changes nothing.

    A version lower than the known one is dropped; an equal or higher one merges, and kind and creation time
    follow. An unversioned report of a versioned entity changes properties and `updated_at` only; of two
    unversioned ones the first creation time stays.
    """
    kind, created_at, version = incoming.kind, incoming.created_at or known.created_at, incoming.version
    known_version = known.version
    if version is not None:
        if known_version is not None and version < known_version:
            return known
    elif known_version is not None:
        kind, created_at, version = known.kind, known.created_at, known_version
    else:
        created_at = known.created_at or incoming.created_at
    updated_at = known.updated_at if incoming.updated_at is None else incoming.updated_at
    merged = TimelineEntity(
        known.id, kind, created_at, updated_at, version, {**known.props, **incoming.props}
    )
    return known if same_entity(known, merged) else merged


def same_entity(one: TimelineEntity, other: TimelineEntity) -> bool:
    """Whether two entities are the same to the last type: `True` is not `1` here."""
    return one is other or (one == other and _same_json(one.props, other.props))


def _same_json(one: Any, other: Any) -> bool:
    # Called on values that are equal to Python; what is left to compare are the types inside.
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return all(_same_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return all(map(_same_json, one, other))
    return True
