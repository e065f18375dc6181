"""JSON for the client: what cannot be sent is an error at the agent's own line, with the path to it."""

from __future__ import annotations

import json
from typing import Any

from voicethere.wire.ipc import MAX_CLIENT_MESSAGE_BYTES

_MAX_DEPTH = 100


def json_text(function: str, payload: Any) -> str:
    """`payload` as JSON text, for the SDK function of this name.

    Raises:
        TypeError: it holds something that JSON cannot say.
        ValueError: it refers to itself, is nested too deep, is not finite or too long.
    """
    try:
        text = json.dumps(payload, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise _explained(function, payload, error) from None
    if size > MAX_CLIENT_MESSAGE_BYTES:
        raise ValueError(
            f"{function}() takes at most {MAX_CLIENT_MESSAGE_BYTES} bytes of JSON, this payload has {size}; "
            "send it in parts"
        )
    return text


def _explained(function: str, payload: Any, error: Exception) -> Exception:
    found = _first_problem(payload, "payload", 0, frozenset())
    if found is None:
        return type(error)(f"{function}(): the payload cannot be JSON: {error}")
    kind, words = found
    return kind(f"{function}(): {words}")


def _first_problem(
    value: Any, path: str, depth: int, above: frozenset[int]
) -> tuple[type[Exception], str] | None:
    """The first thing, in order, that JSON cannot hold: which kind of error that is, and the words."""
    if value is None or isinstance(value, (bool, int)):
        return None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return ValueError, f"{path} is no Unicode text (half of a surrogate pair)"
        return None
    if isinstance(value, float):
        if value - value == 0:
            return None
        return ValueError, f"{path} is {value}, which JSON cannot say; send None or a str"
    if not isinstance(value, (dict, list, tuple)):
        return TypeError, (
            f"{path} is {_with_article(type(value).__name__)}, which JSON cannot hold; "
            "send dicts, lists, strings, numbers, booleans and None"
        )
    if id(value) in above:
        return ValueError, f"{path} refers to something that holds it"
    if depth >= _MAX_DEPTH:
        return ValueError, f"{path[:200]}… is nested more than {_MAX_DEPTH} levels deep"
    above = above | {id(value)}
    if isinstance(value, dict):
        for key, item in value.items():
            if not (key is None or isinstance(key, (str, int, float))):
                kind = _with_article(type(key).__name__)
                return TypeError, f"{path} has {kind} as a key ({key!r:.60}); JSON keys are strings"
            found = _first_problem(key, f"the key {key!r:.60} of {path}", depth, above)
            found = found or _first_problem(item, f"{path}[{key!r:.60}]", depth + 1, above)
            if found:
                return found
        return None
    for index, item in enumerate(value):
        found = _first_problem(item, f"{path}[{index}]", depth + 1, above)
        if found:
            return found
    return None


def _with_article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
