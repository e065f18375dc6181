"""Which handler carries out which SEM event, and what becomes of one that raises.

Knows no socket and decodes nothing. What the default handlers do stands in `stream_effects`,
`entity_effects` and `error_effects`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from voicethere.core.chat import actions, checks, entity_effects, error_effects, stream_effects
from voicethere.core.chat.errors import ChatErrorKind, ChatErrorStage
from voicethere.core.chat.sem_context import DispatchingStore, Handler, SemContext
from voicethere.errors.bounds import cut_end
from voicethere.errors.tracebacks import in_words
from voicethere.wire.sem import SemEvent, UndecodableSem

__all__ = ["DEFAULT_HANDLERS", "DispatchingStore", "Handler", "SemContext", "SemRegistry"]

DEFAULT_HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        "llm.start": stream_effects.stream_starts,
        "llm.thinking.start": stream_effects.stream_starts,
        "llm.delta": stream_effects.stream_goes_on,
        "llm.thinking.delta": stream_effects.stream_goes_on,
        "llm.final": stream_effects.reply_ends,
        "llm.thinking.summary": stream_effects.summary_ends,
        "llm.thinking.final": stream_effects.thinking_ends,
        "timeline.upsert": entity_effects.timeline_upsert,
        "log": entity_effects.log,
        "agent.mode": entity_effects.agent_mode,
        "debugger.pause": entity_effects.debugger_pause,
        "session.error": error_effects.session_error,
    }
)
"""What each event of the contract does, by its type."""


class SemRegistry:
    """The handlers of SEM events by type. One registry may serve any number of conversations.

    Example:
        >>> registry = SemRegistry()
        >>> registry.register("agent.message", lambda context, event: print(context.conv_id, event.data))
        >>> registry.apply(context, event)
    """

    __slots__ = ("_handlers",)

    def __init__(self) -> None:
        """A registry with the default handlers."""
        self._handlers: dict[str, Handler] = dict(DEFAULT_HANDLERS)

    @classmethod
    def empty(cls) -> SemRegistry:
        """A registry without any handler: it ignores everything."""
        registry = cls()
        registry._handlers.clear()
        return registry

    @property
    def types(self) -> frozenset[str]:
        """The event types that have a handler."""
        return frozenset(self._handlers)

    def register(self, type: str, handler: Handler) -> Handler | None:
        """Let `handler` carry out events of `type`, in place of the handler before, which is returned.

        Call that one from within to add to what it does.

        Raises:
            TypeError: `type` is not a string, or `handler` cannot be called or is a coroutine function.
            ValueError: `type` is empty.
        """
        if not isinstance(type, str):
            raise TypeError(f"the event type must be a string, not {type.__class__.__name__}")
        if not type:
            raise ValueError("the event type must not be empty")
        checks.plain_function(handler, f"the handler of {type!r}")
        before = self._handlers.get(type)
        self._handlers[type] = handler
        return before

    def unregister(self, type: str) -> Handler | None:
        """Ignore events of `type` from now on; the handler that carried them out, or None."""
        return self._handlers.pop(type, None)

    def apply(self, context: SemContext, event: SemEvent) -> bool:
        """Carry out an event; False where no handler is registered for its type.

        A handler that raises becomes an error record of the conversation (`runtime_error`, or
        `sem_decode_error` for an `UndecodableSem`; stage `stream`); it is not raised.
        """
        handler = self._handlers.get(event.type)
        if handler is None:
            return False
        try:
            handler(context, event)
        except Exception as error:
            _record_failure(context, event, handler, error)
        return True


def _record_failure(context: SemContext, event: SemEvent, handler: Handler, error: Exception) -> None:
    undecodable = isinstance(error, UndecodableSem)
    kind = ChatErrorKind.SEM_DECODE_ERROR if undecodable else ChatErrorKind.RUNTIME_ERROR
    words = str(error) if undecodable else f"handling {cut_end(event.type, 100)!r} failed: {in_words(error)}"
    context.store.dispatch(
        actions.push_error(
            context.conv_id,
            kind=kind,
            stage=ChatErrorStage.STREAM,
            message=words,
            source=_name(handler),
            details={"event_type": event.type, "event_id": event.id, "error": in_words(error)},
        )
    )


def _name(handler: Handler) -> str:
    name = getattr(handler, "__qualname__", None) or handler.__class__.__qualname__
    module = getattr(handler, "__module__", None)
    return f"{module}.{name}" if module else str(name)
