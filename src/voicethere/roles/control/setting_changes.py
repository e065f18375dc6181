"""Changing one setting by its name: which there are, of what type, in what range.

The types and ranges come from the structs in `wire.settings`; an operator's lower top may be laid over.
"""

from __future__ import annotations

import json
import types
import unicodedata
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec

from voicethere.adapters.http.errors import HttpProblem, invalid
from voicethere.roles.control.origins import all_as_sent

Settings = TypeVar("Settings", bound=msgspec.Struct)

_NO_LIMITS: Mapping[str, int] = types.MappingProxyType({})


def changed(settings: Settings, key: str, value: Any, *, tops: Mapping[str, int] = _NO_LIMITS) -> Settings:
    """`settings` with one of them changed. `tops` are lower maxima of integer settings, by key.

    Raises:
        HttpProblem: 422 that names the key and what it takes.
    """
    kind = type(settings)
    fields = {field.name: field for field in msgspec.inspect.type_info(kind).fields}  # type: ignore[attr-defined]
    field = fields.get(key)
    if field is None:
        known = ", ".join(fields)
        raise invalid(f"{_shown(key)} is no setting. There are: {known}.")
    problem = invalid(f"`{key}` takes {_range(field.type, tops.get(key))}; this was {_shown(value)}.")
    try:
        # Strict: "30" is no number here, and true is no integer.
        converted = msgspec.convert(value, get_type_hints(kind, include_extras=True)[key])
    except msgspec.ValidationError as error:
        raise problem from error
    if key in tops and converted > tops[key]:
        raise problem
    if isinstance(converted, str):
        _require_speakable(key, converted)
    if isinstance(converted, list):
        try:
            converted = all_as_sent(converted)
        except ValueError as error:
            raise invalid(f"`{key}`: {error}.") from error
    return msgspec.structs.replace(settings, **{key: converted})


def _range(kind: Any, top: int | None) -> str:
    if isinstance(kind, msgspec.inspect.BoolType):
        return "true or false"
    if isinstance(kind, msgspec.inspect.IntType):
        most = kind.le if top is None else min(top, kind.le if kind.le is not None else top)
        return f"an integer from {kind.ge} to {most}"
    if isinstance(kind, msgspec.inspect.StrType):
        return f"a string of at most {kind.max_length} characters"
    if isinstance(kind, msgspec.inspect.EnumType):
        return "one of " + ", ".join(f'"{member.value}"' for member in kind.cls)
    if isinstance(kind, msgspec.inspect.ListType):
        most = kind.max_length
        return f'a list of at most {most} origins such as "https://shop.example", empty for every page'
    return "another value"


def _require_speakable(key: str, text: str) -> None:
    """Raises HttpProblem (422): control characters can neither be spoken nor shown."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            problem: HttpProblem = invalid(
                f"`{key}` takes printable text; it holds the control character U+{ord(character):04X}."
            )
            raise problem


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"
