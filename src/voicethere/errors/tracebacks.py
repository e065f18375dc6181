"""Turns an exception into words and a traceback, whatever the exception does when it is looked at.

Both come out raw: `convert` redacts and bounds them.
"""

from __future__ import annotations

import traceback
from types import TracebackType

from voicethere.errors.redact import safe_text

_MOST_FRAMES = 200
_MOST_EXCEPTIONS = 16


def type_name(error: BaseException) -> str:
    """The type's name, with its module where that is not built in: `json.decoder.JSONDecodeError`."""
    kind = type(error)
    try:
        module, name = str(kind.__module__), str(kind.__qualname__)
    except Exception:
        return "Exception"
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def in_words(error: BaseException) -> str:
    """`Type: words`, or the type alone where the exception says nothing."""
    words = safe_text(error)
    return f"{type_name(error)}: {words}" if words else type_name(error)


def stack_without_words(error: BaseException, words: str) -> str:
    """The traceback with its chain of causes, without `words` at its end; empty where there is none.

    The middle of a very long stack, and the end of a very long chain of causes, are left out.
    """
    try:
        text = "".join(_formatted(error)).rstrip()
    except Exception as problem:  # a hostile __cause__, __notes__ or exception group
        return f"[the traceback cannot be shown: {type(problem).__name__}]\n"
    return text[: -len(words)] if text.endswith(words) else text + "\n"


def _formatted(error: BaseException) -> list[str]:
    if _chain_length(error) > _MOST_EXCEPTIONS:
        parts = ["[a chain of more causes than are shown here]\n\n"]
        parts.extend(_one(error, chain=False))
        return parts
    return _one(error, chain=True)


def _one(error: BaseException, *, chain: bool) -> list[str]:
    if _frame_count(error.__traceback__) <= _MOST_FRAMES and chain:
        shown = traceback.TracebackException.from_exception(error)
        return list(shown.format(chain=True))
    # `limit` keeps the innermost frames when it is negative; the outermost are of less interest.
    shown = traceback.TracebackException(
        type(error), error, error.__traceback__, limit=-_MOST_FRAMES, compact=True
    )
    return list(shown.format(chain=chain))


def _frame_count(trace: TracebackType | None) -> int:
    count = 0
    while trace is not None and count <= _MOST_FRAMES:
        count, trace = count + 1, trace.tb_next
    return count


def _chain_length(error: BaseException) -> int:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) <= _MOST_EXCEPTIONS:
        seen.add(id(current))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return len(seen)
