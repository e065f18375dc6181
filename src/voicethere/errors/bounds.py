"""How large the parts of an error may be, and how they are cut so that everybody sees that they were.

This module knows sizes only. Redaction comes before it (`convert.make_record`): what is cut here holds no
secret any more, so that no cut can split one.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any

import msgspec
from msgspec import UNSET

from voicethere.errors.records import SessionErrorEnvelope

TRUNCATED_KEY = "_truncated"
_SMALLEST_STACK = 256
_MAX_SAFE_INTEGER = 2**63


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one error, each a setting (contract: control-channel.md). Characters or bytes, as named.

    `*_bytes` of structured fields count their JSON; `stack_bytes` counts the text's UTF-8.
    """

    message_chars: int = 2_048
    stack_bytes: int = 32 * 1024
    context_bytes: int = 8 * 1024
    context_depth: int = 8
    details_bytes: int = 16 * 1024
    details_depth: int = 8
    log_lines: int = 20
    log_line_chars: int = 500
    envelope_bytes: int = 60 * 1024


DEFAULT_BOUNDS = Bounds()


# ------------------------------------------------------------------ text


@functools.cache
def _unprintable() -> re.Pattern[str]:
    return re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def sanitise(text: str) -> str:
    """`text` with what JSON, a database or a terminal chokes on (controls, lone surrogates) as `\ufffd`.

    Tabs and line breaks stay. The length stays too.
    """
    return _unprintable().sub("\ufffd", text)


def cut_end(text: str, max_chars: int) -> str:
    """At most `max_chars` characters of `text`; an ellipsis says where it was cut."""
    if len(text) <= max_chars:
        return text
    return text[: max_chars - 1] + "…" if max_chars > 0 else ""


def cut_middle(text: str, max_bytes: int) -> str:
    """At most `max_bytes` bytes (UTF-8) of `text`: both ends, and a line that says what is missing."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text
    # The mark's own length depends on the number in it: reserve for the longest.
    mark = "\n… {} bytes left out …\n"
    room = max_bytes - len(mark.format(len(data)).encode())
    if room < 2:
        return cut_end_bytes(text, max_bytes)
    head = data[: room // 2].decode("utf-8", "ignore")
    tail = data[len(data) - (room - room // 2) :].decode("utf-8", "ignore")
    left_out = len(data) - len(head.encode()) - len(tail.encode())
    return head + mark.format(left_out) + tail


def cut_end_bytes(text: str, max_bytes: int) -> str:
    """At most `max_bytes` bytes (UTF-8) of `text`, with an ellipsis where there is room for one."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text
    if max_bytes < 3:
        return ""
    return data[: max_bytes - 3].decode("utf-8", "ignore") + "…"


def json_bytes(value: Any) -> int:
    """The length of `value` as JSON."""
    return len(msgspec.json.encode(value))


# ------------------------------------------------------------------ customer_context


def context_problem(
    value: Any,
    bounds: Bounds = DEFAULT_BOUNDS,
    *,
    max_bytes: int | None = None,
    max_depth: int | None = None,
) -> str | None:
    """Why `value` cannot be a `customer_context`, in words for whoever sent it; None where it can.

    `max_bytes` (of JSON) and `max_depth` (levels; the object itself is the first) win over `bounds`.
    Never raises: cycles, foreign types and broken text are problems like any other.
    """
    if not isinstance(value, dict):
        return f"customer_context must be a JSON object, not {_json_name(value)}"
    max_bytes = bounds.context_bytes if max_bytes is None else max_bytes
    max_depth = bounds.context_depth if max_depth is None else max_depth
    problem = _structure_problem(value, "customer_context", max_depth, 1)
    if problem is not None:
        return problem
    size = json_bytes(value)
    if size > max_bytes:
        return f"customer_context is {size:,} bytes as JSON; at most {max_bytes:,} are allowed"
    return None


def _structure_problem(value: Any, path: str, max_depth: int, depth: int) -> str | None:
    if isinstance(value, (dict, list, tuple)):
        if depth > max_depth:
            return f"customer_context is nested deeper than the {max_depth} levels that are allowed"
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if isinstance(value, dict):
                if not isinstance(key, str):
                    return f"a key in {path} is not a string but {_json_name(key)}"
                if not _encodable(key):
                    return f"a key in {path} holds a lone surrogate, which is not valid Unicode"
            problem = _structure_problem(item, f"{path}[{_shown(key)}]", max_depth, depth + 1)
            if problem is not None:
                return problem
        return None
    if isinstance(value, str):
        return None if _encodable(value) else f"{path} holds a lone surrogate, which is not valid Unicode"
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        fits = -_MAX_SAFE_INTEGER <= value < 2 * _MAX_SAFE_INTEGER
        return None if fits else f"{path} is an integer of more than 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{path} is not a finite number"
    return f"{path} is not JSON but {_json_name(value)}"


def _shown(key: Any) -> str:
    return repr(key[:24] + "…" if len(key) > 24 else key) if isinstance(key, str) else str(key)


def _encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _json_name(value: Any) -> str:
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def truncate_context(value: Any, bounds: Bounds = DEFAULT_BOUNDS) -> dict[str, Any]:
    """What of `value` fits a `customer_context`; what was left out is marked where it was.

    For those that must keep something. `value` is JSON data (`Redactor.value` cuts its cycles); what is
    not an object comes back as `{"value": …}`.
    """
    wrapped = value if isinstance(value, dict) else {"value": value}
    return fit_object(wrapped, max_bytes=bounds.context_bytes, max_depth=bounds.context_depth)


# ------------------------------------------------------------------ structured data

# (longest string, most items of one container): tried from the left until the whole fits.
_SQUEEZES = ((4_096, 1_024), (1_024, 256), (256, 64), (96, 32), (48, 12))


def fit_object(value: dict[str, Any], *, max_bytes: int, max_depth: int) -> dict[str, Any]:
    """`value` as JSON data of at most `max_bytes` bytes and `max_depth` levels, its strings sanitised.

    First everything is kept, then long strings and containers are shortened step by step, then whole
    fields are left out from the end; each time with a mark. Never raises, and never returns more than
    fits (an empty object where not even the mark does).
    """
    whole: dict[str, Any] = _squeezed(value, max_depth, None)
    if json_bytes(whole) <= max_bytes:
        return whole
    smaller: dict[str, Any] = whole
    for limits in _SQUEEZES:
        smaller = _squeezed(value, max_depth, limits)
        if json_bytes(smaller) <= max_bytes:
            return smaller
    kept: dict[str, Any] = {}
    mark = {TRUNCATED_KEY: f"{len(smaller)} of {len(smaller)} fields left out"}
    size = json_bytes(mark)
    for key, item in smaller.items():
        cost = json_bytes(key) + json_bytes(item) + 2
        if key != TRUNCATED_KEY and size + cost <= max_bytes:
            kept[key] = item
            size += cost
    kept[TRUNCATED_KEY] = f"{len(smaller) - len(kept)} of {len(smaller)} fields left out"
    return kept if json_bytes(kept) <= max_bytes else {}


def _squeezed(value: Any, depth: int, limits: tuple[int, int] | None) -> Any:
    if isinstance(value, str):
        text = sanitise(value)
        return text if limits is None else cut_end(text, limits[0])
    if isinstance(value, (dict, list, tuple)):
        if depth <= 0:
            return "[truncated: too deep]"
        most = len(value) if limits is None else limits[1]
        left_out = max(0, len(value) - most)
        if isinstance(value, dict):
            fields: dict[str, Any] = {}
            for key, item in list(value.items())[:most]:
                name = sanitise(key if isinstance(key, str) else str(key))
                fields[name if limits is None else cut_end(name, limits[0])] = _squeezed(
                    item, depth - 1, limits
                )
            if left_out:
                fields[TRUNCATED_KEY] = f"{left_out} of {len(value)} fields left out"
            return fields
        items = [_squeezed(item, depth - 1, limits) for item in value[:most]]
        return [*items, f"[truncated: {left_out} of {len(value)} items left out]"] if left_out else items
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_MAX_SAFE_INTEGER <= value < 2 * _MAX_SAFE_INTEGER else _big_integer(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    return f"[{type(value).__name__}]"


def _big_integer(value: int) -> str:
    return str(value) if value.bit_length() <= 1024 else f"[number of {value.bit_length()} bits]"


# ------------------------------------------------------------------ the envelope as a whole


def fit_envelope(
    envelope: SessionErrorEnvelope, max_bytes: int | None, bounds: Bounds = DEFAULT_BOUNDS
) -> SessionErrorEnvelope:
    """`envelope` as JSON of at most `bounds.envelope_bytes`, and of `max_bytes` where the peer has a limit.

    The stack gives way first, then the context, then the message. Where even an envelope without these
    would be larger, its optional ids and time are left out too; `type`, `code`, `session_id` and
    `recoverable` always stay, so that below some 200 bytes the result can be larger than asked for.
    """
    max_bytes = bounds.envelope_bytes if max_bytes is None else min(max_bytes, bounds.envelope_bytes)
    excess = json_bytes(envelope) - max_bytes
    if excess > 0 and isinstance(envelope.stack, str):
        room = json_bytes(envelope.stack) - excess
        stack = _cut_to_json(envelope.stack, room) if room >= _SMALLEST_STACK else None
        envelope = msgspec.structs.replace(envelope, stack=stack or UNSET)
        excess = json_bytes(envelope) - max_bytes
    if excess > 0 and isinstance(envelope.customer_context, dict):
        room = json_bytes(envelope.customer_context) - excess
        context = fit_object(envelope.customer_context, max_bytes=room, max_depth=64)
        envelope = msgspec.structs.replace(envelope, customer_context=context or UNSET)
        excess = json_bytes(envelope) - max_bytes
    if excess > 0:
        room = max(2, json_bytes(envelope.message) - excess)
        envelope = msgspec.structs.replace(envelope, message=_cut_to_json(envelope.message, room))
        excess = json_bytes(envelope) - max_bytes
    for name in ("build_id", "project_id", "occurred_at"):
        if excess > 0:
            envelope = msgspec.structs.replace(envelope, **{name: UNSET})
            excess = json_bytes(envelope) - max_bytes
    return envelope


def _cut_to_json(text: str, max_json_bytes: int) -> str:
    """The longest `cut_middle` of `text` whose JSON, with quotes and escapes, takes at most so many bytes."""
    low, high = 0, min(max_json_bytes, len(text.encode("utf-8", "replace")))
    if json_bytes(text) <= max_json_bytes:
        return text
    while low < high:
        middle = (low + high + 1) // 2
        if json_bytes(cut_middle(text, middle)) <= max_json_bytes:
            low = middle
        else:
            high = middle - 1
    return cut_middle(text, low)
