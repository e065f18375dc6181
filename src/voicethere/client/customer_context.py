"""Checking the application's context before anything is sent with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from voicethere.wire.control_channel import MAX_CUSTOMER_CONTEXT_BYTES, MAX_CUSTOMER_CONTEXT_DEPTH


def checked_context(context: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The context as the wire will carry it, or None.

    Raises:
        ValueError: not a JSON object, more than 8 KiB of it, or more than 8 levels deep.
    """
    if context is None:
        return None
    if not isinstance(context, Mapping):
        raise ValueError(f"customer_context must be an object (a dict), not {type(context).__name__}")
    if _depth_exceeds(context, MAX_CUSTOMER_CONTEXT_DEPTH):
        raise ValueError(f"customer_context is more than {MAX_CUSTOMER_CONTEXT_DEPTH} levels deep")
    try:
        encoded = msgspec.json.encode(dict(context))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"customer_context is not JSON: {error}") from error
    if len(encoded) > MAX_CUSTOMER_CONTEXT_BYTES:
        raise ValueError(
            f"customer_context is {len(encoded)} bytes of JSON; {MAX_CUSTOMER_CONTEXT_BYTES} are allowed"
        )
    return msgspec.json.decode(encoded, type=dict[str, Any])


def _depth_exceeds(value: object, levels: int) -> bool:
    if isinstance(value, Mapping):
        return levels == 0 or any(_depth_exceeds(each, levels - 1) for each in value.values())
    if isinstance(value, list | tuple):
        return levels == 0 or any(_depth_exceeds(each, levels - 1) for each in value)
    return False
