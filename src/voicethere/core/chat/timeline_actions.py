"""What can happen to a conversation's timeline. Each function checks its arguments and makes an action."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from voicethere.core.chat import checks
from voicethere.core.chat.entities import TimelineEntity


class AddEntity(msgspec.Struct, frozen=True):
    """An entity that is left alone where its id is known."""

    conv_id: str
    entity: TimelineEntity


class UpsertEntity(msgspec.Struct, frozen=True):
    """An entity that is new, or merged with the known one."""

    conv_id: str
    entity: TimelineEntity


class RekeyEntity(msgspec.Struct, frozen=True):
    """An entity has another id."""

    conv_id: str
    from_id: str
    to_id: str


class ApplySnapshot(msgspec.Struct, frozen=True):
    """The timeline is exactly these entities, in this order."""

    conv_id: str
    entities: tuple[TimelineEntity, ...]


class MergeSnapshot(msgspec.Struct, frozen=True):
    """Each entity is upserted, in this order."""

    conv_id: str
    entities: tuple[TimelineEntity, ...]


class UpsertSuggestions(msgspec.Struct, frozen=True):
    """Suggestions, as given: the store trims them and fills in the time."""

    conv_id: str
    entity_id: str
    source: str
    suggestions: tuple[str, ...]
    replace: bool
    version: int | None
    updated_at: int | None


class ConsumeSuggestions(msgspec.Struct, frozen=True):
    """The user has taken a suggestion, or written something else."""

    conv_id: str
    entity_id: str
    at: int | None


class ClearConversation(msgspec.Struct, frozen=True):
    """The timeline is gone."""

    conv_id: str


def add_entity(conv_id: str, entity: TimelineEntity) -> AddEntity:
    """Add an entity at the end; one whose id is known is left alone.

    Raises:
        TypeError: a field of a wrong type, or `props` that are not JSON data.
        ValueError: an empty id or kind, or a value out of bounds.
    """
    return AddEntity(_conv(conv_id), checks.entity(entity))


def upsert_entity(conv_id: str, entity: TimelineEntity) -> UpsertEntity:
    """Add an entity, or merge it with the known one by their versions (see `entities.merge`).

    Raises:
        TypeError, ValueError: as `add_entity`.
    """
    return UpsertEntity(_conv(conv_id), checks.entity(entity))


def rekey_entity(conv_id: str, from_id: str, to_id: str) -> RekeyEntity:
    """Give an entity another id. Where that one exists, its kind and properties win and the source goes."""
    return RekeyEntity(
        _conv(conv_id), checks.identifier(from_id, "from_id"), checks.identifier(to_id, "to_id")
    )


def apply_snapshot(conv_id: str, entities: Iterable[TimelineEntity]) -> ApplySnapshot:
    """Replace the timeline.

    Raises:
        TypeError, ValueError: as `add_entity`, for the first entity that is none.
    """
    return ApplySnapshot(_conv(conv_id), _entities(entities))


def merge_snapshot(conv_id: str, entities: Iterable[TimelineEntity]) -> MergeSnapshot:
    """Upsert every entity; those that are not in it stay.

    Raises:
        TypeError, ValueError: as `add_entity`, for the first entity that is none.
    """
    return MergeSnapshot(_conv(conv_id), _entities(entities))


def upsert_suggestions(
    conv_id: str,
    *,
    entity_id: str,
    source: str,
    suggestions: Iterable[str],
    replace: bool = True,
    version: int | None = None,
    updated_at: float | None = None,
) -> UpsertSuggestions:
    """Suggest texts to the user; with `replace=False` in addition to those that are there.

    `source` is `"starter"` for what is suggested before anyone has spoken, else who suggests (`"assistant"`).
    An older `version` than the known one is ignored. `updated_at` is in epoch milliseconds (default: now).
    """
    if isinstance(suggestions, str) or not isinstance(suggestions, Iterable):
        raise TypeError(f"suggestions must be several strings, not {type(suggestions).__name__}")
    items = tuple(suggestions)
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise TypeError(f"suggestions[{index}] must be a string, not {type(item).__name__}")
    return UpsertSuggestions(
        _conv(conv_id),
        checks.identifier(entity_id, "entity_id"),
        checks.identifier(source, "source"),
        items,
        checks.flag(replace, "replace"),
        checks.version(version, "version"),
        None if updated_at is None else checks.time_ms(updated_at, "updated_at"),
    )


def consume_suggestions(conv_id: str, entity_id: str, at: float | None = None) -> ConsumeSuggestions:
    """Hide suggestions from `at` on (epoch milliseconds, default: now); once, the first time stays."""
    return ConsumeSuggestions(
        _conv(conv_id),
        checks.identifier(entity_id, "entity_id"),
        None if at is None else checks.time_ms(at, "at"),
    )


def clear_conversation(conv_id: str) -> ClearConversation:
    """The timeline's entry is gone."""
    return ClearConversation(_conv(conv_id))


def _conv(conv_id: object) -> str:
    return checks.identifier(conv_id, "conv_id")


def _entities(entities: Iterable[TimelineEntity]) -> tuple[TimelineEntity, ...]:
    if not isinstance(entities, Iterable):
        raise TypeError(f"entities must be several TimelineEntity, not {type(entities).__name__}")
    return tuple(checks.entity(entity) for entity in entities)
