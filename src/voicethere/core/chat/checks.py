"""Checks of what a caller puts into an action: each returns the value or raises words that name the argument.

Knows types and bounds only. What the values mean, and their defaults, is not decided here.
"""

from __future__ import annotations

import enum
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from voicethere.core.chat.entities import TimelineEntity

MAX_ID_CHARS = 1_024
MAX_TIME_MS = 8_640_000_000_000_000
"""The latest moment that a JavaScript `Date` can tell, in epoch milliseconds."""
MAX_COUNT = 2**53 - 1
MAX_PROPS_DEPTH = 64

Choice = TypeVar("Choice", bound=enum.StrEnum)
Function = TypeVar("Function", bound=Callable[..., Any])


def identifier(value: object, name: str) -> str:
    """A non-empty string of at most 1,024 characters.

    Raises:
        TypeError: not a string.
        ValueError: empty or too long.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {_type(value)}")
    if not 0 < len(value) <= MAX_ID_CHARS:
        raise ValueError(f"{name} must have 1 to {MAX_ID_CHARS:,} characters, not {len(value):,}")
    return value


def choice(value: object, kind: type[Choice], name: str) -> Choice:
    """A member of `kind`, given as itself or as its value.

    Raises:
        ValueError: no member; the words list the valid ones.
    """
    if isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            pass
    raise ValueError(f"unknown {name} {_shown(value)}: must be one of {', '.join(kind)}")


def optional_text(value: object, name: str) -> str | None:
    """A string or None.

    Raises:
        TypeError: anything else.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string or None, not {_type(value)}")
    return value


def flag(value: object, name: str) -> bool:
    """True or False.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {_type(value)}")
    return value


def number(value: object, name: str) -> int | float:
    """A finite number that is no larger than what JSON readers hold exactly.

    Raises:
        TypeError: not a number.
        ValueError: not finite, or too large.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {_type(value)}")
    if not -MAX_COUNT <= value <= MAX_COUNT:  # also refuses NaN and the infinities
        raise ValueError(f"{name} must be a finite number of at most {MAX_COUNT}, not {_shown(value)}")
    return value


def time_ms(value: object, name: str) -> int:
    """A moment in epoch milliseconds, its fraction cut.

    Raises:
        TypeError: not a number.
        ValueError: negative, not finite, or later than any calendar.
    """
    moment = value if type(value) is int else number(value, name)
    if not 0 <= moment <= MAX_TIME_MS:
        raise ValueError(f"{name} must be 0 to {MAX_TIME_MS} (epoch milliseconds), not {_shown(value)}")
    return int(moment)


def version(value: object, name: str) -> int | None:
    """A version: a positive whole number. None and what is not positive mean "unversioned".

    Raises:
        TypeError: not a whole number.
        ValueError: more than 64 bits.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number or None, not {_type(value)}")
    if value >= 2**63:
        raise ValueError(f"{name} must fit 64 bits")
    return value if value > 0 else None


def entity(value: object) -> TimelineEntity:
    """An entity with properties of its own, which no caller can change any more.

    Raises:
        TypeError: not an entity, or one with fields of wrong types.
        ValueError: an empty id or kind, an impossible time, properties that are not JSON data.
    """
    if not isinstance(value, TimelineEntity):
        raise TypeError(f"the entity must be a TimelineEntity, not {_type(value)}")
    return TimelineEntity(
        identifier(value.id, "entity.id"),
        identifier(value.kind, "entity.kind"),
        time_ms(value.created_at, "entity.created_at"),
        None if value.updated_at is None else time_ms(value.updated_at, "entity.updated_at"),
        version(value.version, "entity.version"),
        json_object(value.props, "entity.props"),
    )


def decoded_entity(value: TimelineEntity) -> TimelineEntity:
    """As `entity`, for one whose properties have just been decoded: nobody else holds them, so they stay.

    Raises:
        ValueError: as `entity`.
    """
    updated_at, known_version = value.updated_at, value.version
    if (
        0 < len(value.id) <= MAX_ID_CHARS
        and 0 < len(value.kind) <= MAX_ID_CHARS
        and 0 <= value.created_at <= MAX_TIME_MS
        and (updated_at is None or 0 <= updated_at <= MAX_TIME_MS)
        and (known_version is None or 0 < known_version < 2**63)
        and _is_bounded(value.props, MAX_PROPS_DEPTH)
    ):
        return value
    return entity(value)  # it has the words


def json_object(value: object, name: str) -> dict[str, Any]:
    """A deep copy of a JSON object.

    Raises:
        TypeError: not a mapping, or something in it is not JSON data.
        ValueError: numbers that are not finite, or more than 64 levels (a cycle is one of those).
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, not {_type(value)}")
    copied: dict[str, Any] = _json(value, (None, name), MAX_PROPS_DEPTH)
    return copied


def plain_function(value: Function, name: str) -> Function:
    """Something that can be called, and does at once what it does.

    Raises:
        TypeError: it cannot be called, or is a coroutine function, which nobody would await.
    """
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {type(value).__name__}")
    called = getattr(value, "__call__", None)  # noqa: B004 -- of an object whose __call__ is async
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(called):
        raise TypeError(f"{name} must be a plain function: what it does is not awaited")
    return value


_Path = tuple[Any, str]
"""Where a value stands: the path of what holds it, and its name there. Words only where it is wrong."""
_PLAIN = frozenset({str, bool, type(None)})
"""The exact types whose values are immutable and need no look."""


def _json(value: object, path: _Path, levels: int) -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise ValueError(f"{_place(path)} must fit 64 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{_place(path)} must be a finite number, not {value}")
        return value
    if not isinstance(value, (Mapping, list, tuple)):
        raise TypeError(f"{_place(path)} must be JSON data, not {_type(value)}")
    if levels == 0:
        raise ValueError(f"{_place(path)[:200]} is nested deeper than {MAX_PROPS_DEPTH} levels")
    if not isinstance(value, Mapping):
        return [
            item if type(item) in _PLAIN else _json(item, (path, f"[{index}]"), levels - 1)
            for index, item in enumerate(value)
        ]
    copied = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"the keys of {_place(path)} must be strings, not {_type(key)}")
        copied[key] = item if type(item) in _PLAIN else _json(item, (path, f".{key[:40]}"), levels - 1)
    return copied


def _place(path: _Path) -> str:
    names: list[str] = []
    step: _Path | None = path
    while step is not None:
        step, name = step
        names.append(name)
    return "".join(reversed(names))


def _is_bounded(value: dict[str, Any] | list[Any], levels: int) -> bool:
    # What a JSON decoder has made can only be too deep, or hold a number of more than 64 bits.
    if levels == 0:
        return False
    items: Iterable[Any] = value.values() if isinstance(value, dict) else value
    for item in items:
        kind = type(item)
        if kind in _PLAIN or kind is float:
            continue
        if kind is int:
            if not -(2**63) <= item < 2**64:
                return False
        elif (kind is not dict and kind is not list) or not _is_bounded(item, levels - 1):
            return False
    return True


def _type(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    shown = repr(value) if isinstance(value, (str, int, float)) else _type(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"
