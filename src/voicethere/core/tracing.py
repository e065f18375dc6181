"""The port for traces: a role says what work it does; without a tracer that costs next to nothing."""

from __future__ import annotations

import contextlib
from typing import Protocol

Attribute = str | int | float | bool


class Span(Protocol):
    """One piece of work under way."""

    def set(self, **attributes: Attribute) -> None:
        """What became known meanwhile. `__` in a name stands for a dot."""


class Tracer(Protocol):
    """Makes spans.

    Example:
        >>> with tracer.span("commit batch", items=len(items)) as span:
        ...     span.set(inserted=store(items))
    """

    def span(
        self, name: str, /, *, parent: str | None = None, **attributes: Attribute
    ) -> contextlib.AbstractContextManager[Span]:
        """A span for as long as the context is open; an exception that leaves it is recorded.

        `parent` is a W3C `traceparent` of another process; without one the current span is it.
        """


class _NoSpan:
    def set(self, **attributes: Attribute) -> None:
        """Nobody wants to know."""


class NoTracer:
    """Implements `Tracer` by doing nothing."""

    def span(
        self, name: str, /, *, parent: str | None = None, **attributes: Attribute
    ) -> contextlib.AbstractContextManager[Span]:
        """Nothing."""
        return _NOTHING


_NOTHING: contextlib.nullcontext[Span] = contextlib.nullcontext(_NoSpan())
NO_TRACER = NoTracer()
