"""Checking the application's context before anything is sent with it, by the rule that the platform has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from voicethere.errors.bounds import context_problem


def checked_context(context: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The context as the wire will carry it, or None.

    Raises:
        ValueError: not a JSON object, more than 8 KiB of it, or more than 8 levels deep.
    """
    if context is None:
        return None
    if not isinstance(context, Mapping):
        raise ValueError(f"customer_context must be an object (a dict), not {type(context).__name__}")
    try:
        carried = msgspec.json.decode(msgspec.json.encode(dict(context)), type=dict[str, Any])
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"customer_context is not JSON: {error}") from error
    problem = context_problem(carried)
    if problem is not None:
        raise ValueError(problem)
    return carried
