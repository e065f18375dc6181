"""The chat store: holds the newest state, completes and reduces what is dispatched, tells its listeners.

Knows no socket and no HTTP. One thread (an event loop's) uses one store; states may go anywhere.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable

from voicethere.core.chat import checks
from voicethere.core.chat.actions import Action
from voicethere.core.chat.normalize import Normalizer
from voicethere.core.chat.reducers import REDUCERS
from voicethere.core.chat.session_actions import COMPLETE
from voicethere.core.chat.state import EMPTY_STATE, ChatState
from voicethere.core.ports import Clock

Listener = Callable[[ChatState, Action], object]
DUPLICATE_WINDOW_MS = 5_000

_log = logging.getLogger("voicethere.chat")


class ChatStore:
    """The state of any number of conversations.

    Example:
        >>> store = ChatStore()
        >>> store.dispatch(actions.push_error("conv-1", kind="http_error", stage="send", status=500))
        >>> selectors.select_current_error(store.state, "conv-1").message
        'http error (send)'
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        new_id: Callable[[], str] | None = None,
        duplicate_window_ms: int = DUPLICATE_WINDOW_MS,
    ) -> None:
        """`new_id` makes the ids of error records. An error that comes again within `duplicate_window_ms` of
        the newest record raises that record's `details["repeats"]`; 0 records each.

        Raises:
            TypeError: `duplicate_window_ms` is not a number, `clock` no clock, or `new_id` no function.
            ValueError: `duplicate_window_ms` is negative or not finite.
        """
        if clock is not None and not callable(getattr(clock, "now", None)):
            raise TypeError(f"clock must have now(), in epoch seconds; {type(clock).__name__} has not")
        if new_id is not None:
            checks.plain_function(new_id, "new_id")
        window = checks.time_ms(duplicate_window_ms, "duplicate_window_ms")
        # The machine's clock is called directly: a method of ours around it would take as long again.
        now = time.time if clock is None else clock.now
        completers = Normalizer(now, new_id or _numbered_ids(), window).completers
        self._steps = {kind: (completers.get(kind), REDUCERS[COMPLETE.get(kind, kind)]) for kind in REDUCERS}
        self._state = EMPTY_STATE
        self._listeners: dict[object, Listener] = {}
        self._untold: deque[tuple[ChatState, Action]] = deque()
        self._telling = False

    @property
    def state(self) -> ChatState:
        """The newest state. It never changes: a later one is another object."""
        return self._state

    def dispatch(self, action: Action) -> ChatState:
        """Apply an action; the state after it. Listeners hear of it only if the state changed.

        A listener may dispatch: that applies at once, and every listener hears of it after this change.

        Raises:
            TypeError: not an action of this store.
        """
        before = self._state
        try:
            complete, reducer = self._steps[type(action)]
        except KeyError:
            raise TypeError(f"not an action of the chat store: {type(action).__name__}") from None
        if complete is not None:
            action = complete(action)
        state = reducer(before, action)
        if state is before:
            return state
        self._state = state
        if self._listeners:
            self._untold.append((state, action))
            if not self._telling:
                self._tell()
        return state

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(state, action)` after each change; call what this returns to stop that.

        `action` is as the store completed it. A listener that raises is logged, and the others still hear.

        Raises:
            TypeError: the listener cannot be called, or is a coroutine function.
        """
        checks.plain_function(listener, "the listener")
        token = object()
        self._listeners[token] = listener

        def unsubscribe() -> None:
            self._listeners.pop(token, None)

        return unsubscribe

    def _tell(self) -> None:
        self._telling = True
        try:
            while self._untold:
                state, action = self._untold.popleft()
                for token in tuple(self._listeners):
                    listener = self._listeners.get(token)
                    if listener is None:  # another listener has just unsubscribed it
                        continue
                    try:
                        listener(state, action)
                    except Exception:
                        _log.exception("a listener of the chat store failed on %s", type(action).__name__)
        finally:
            self._telling = False


def _numbered_ids() -> Callable[[], str]:
    # Unique across stores by the prefix, within one by the number; a random id for each would cost more
    # than all the rest of an action.
    prefix, numbers = f"{secrets.token_hex(8)}-", itertools.count(1)
    return lambda: prefix + str(next(numbers))
