"""One conversation as an application uses it: send, read, retry, follow the changes.

A view of the store and a door to the conversations' manager; it keeps nothing but the last prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from voicethere.chat.store import ChatStore
from voicethere.core.chat import actions, selectors
from voicethere.core.chat.actions import Action
from voicethere.core.chat.entities import TimelineEntity
from voicethere.core.chat.errors import ChatErrorRecord, ChatErrorStage
from voicethere.core.chat.state import EMPTY_TIMELINE, ChatState, ConnectionStatus, TurnStats
from voicethere.core.chat.waiting import is_unanswered

if TYPE_CHECKING:
    from voicethere.chat.conversations import ConversationManager


class Conversation:
    """What `ConversationManager.conversation` gives: valid until its `async with` is left.

    Example:
        >>> async with manager.conversation("conv-1") as conversation:
        ...     await conversation.send("hello")
        ...     async for _ in conversation.changes():
        ...         print(conversation.connection_status, conversation.is_streaming)
    """

    def __init__(self, manager: ConversationManager, store: ChatStore, conv_id: str, window_id: str) -> None:
        self._manager = manager
        self._store = store
        self._conv_id = conv_id
        self._window_id = window_id
        self._last_prompt: str | None = None
        self._closed = False
        self._waiting: set[asyncio.Event] = set()

    @property
    def conv_id(self) -> str:
        """The conversation's id."""
        return self._conv_id

    @property
    def window_id(self) -> str:
        """The window whose "assistant is thinking" placeholder follows `send`."""
        return self._window_id

    @property
    def connection_status(self) -> ConnectionStatus:
        """How the socket is."""
        return selectors.select_connection_status(self._store.state, self._conv_id)

    @property
    def is_streaming(self) -> bool:
        """Whether a reply is coming in."""
        return selectors.select_is_streaming(self._store.state, self._conv_id)

    @property
    def is_awaiting_reply(self) -> bool:
        """Whether something was sent, also where it is not in the timeline yet, and nobody has answered.

        Not while the connection is in `error`.
        """
        state = self._store.state
        window = state.chat_window.get(self._window_id)
        timeline = state.timeline.get(self._conv_id, EMPTY_TIMELINE)
        return (
            window is not None
            and window.conv_id == self._conv_id
            and self.connection_status is not ConnectionStatus.ERROR
            and is_unanswered(timeline, window)
        )

    @property
    def current_error(self) -> ChatErrorRecord | None:
        """The error that is current."""
        return selectors.select_current_error(self._store.state, self._conv_id)

    @property
    def error_history(self) -> tuple[ChatErrorRecord, ...]:
        """The newest 20 errors, oldest first."""
        return selectors.select_error_history(self._store.state, self._conv_id)

    @property
    def entities(self) -> tuple[TimelineEntity, ...]:
        """What the timeline shows, in order; without suggestions."""
        return selectors.select_renderable_timeline_entities(self._store.state, self._conv_id)

    @property
    def suggestions(self) -> tuple[str, ...]:
        """What to suggest to the user."""
        return selectors.select_suggestions(self._store.state, self._conv_id)

    @property
    def model_name(self) -> str | None:
        """The model that answers, where it is known."""
        return selectors.select_model_name(self._store.state, self._conv_id)

    @property
    def turn_stats(self) -> TurnStats | None:
        """What the last turn took."""
        return selectors.select_current_turn_stats(self._store.state, self._conv_id)

    @property
    def last_prompt(self) -> str | None:
        """What was sent last by this object, accepted or not."""
        return self._last_prompt

    async def send(self, text: str) -> None:
        """Submit the user's prompt; return once the gateway has accepted it.

        Raises:
            ChatHttpError: it was not accepted; the error is recorded.
            ValueError: a blank prompt, or one that is not Unicode text.
            RuntimeError: the conversation was left.
        """
        self._require_open()
        self._last_prompt = text
        await self._manager.send(self._conv_id, text, window_id=self._window_id)

    async def retry(self) -> None:
        """Do once more what failed: send the last prompt, or connect. Without a current error do nothing.

        The prompt is sent where one was not accepted, or the session failed over it. The error is cleared
        first.

        Raises:
            ChatHttpError: the prompt was not accepted this time either; the error is recorded.
            RuntimeError: the conversation was left.
        """
        self._require_open()
        error = self.current_error
        if error is None:
            return
        self.clear_error()
        of_a_prompt = error.stage is ChatErrorStage.SEND or error.code is not None
        if of_a_prompt and self._last_prompt is not None:
            await self.send(self._last_prompt)
        else:
            await self.reconnect()

    async def reconnect(self) -> None:
        """Open the socket anew and fetch the snapshot again; return once that is done or has failed.

        Raises:
            RuntimeError: the conversation was left.
        """
        self._require_open()
        await self._manager.reconnect(self._conv_id)

    def clear_error(self) -> None:
        """No error is current any more; the history stays."""
        self._store.dispatch(actions.clear_error(self._conv_id))

    async def changes(self) -> AsyncIterator[ChatState]:
        """The state now, and after each change of this conversation.

        Ends when the conversation is left or its manager closed. Who reads slowly gets the newest state
        and misses those between: nothing piles up.
        """
        changed = asyncio.Event()
        seen = self._parts(self._store.state)

        def listener(state: ChatState, action: Action) -> None:
            if not _same(self._parts(state), seen):
                changed.set()

        unsubscribe = self._store.subscribe(listener)
        self._waiting.add(changed)
        try:
            yield self._store.state
            while not self._closed:
                state = self._store.state
                parts = self._parts(state)
                if _same(parts, seen):
                    await changed.wait()
                    changed.clear()
                    continue
                seen = parts
                yield state
        finally:
            unsubscribe()
            self._waiting.discard(changed)

    def close(self) -> None:
        """End every `changes()`: the conversation is left, or its manager closed, which calls this."""
        self._closed = True
        for changed in self._waiting:
            changed.set()

    def _parts(self, state: ChatState) -> tuple[object, ...]:
        return (
            state.chat_session.get(self._conv_id),
            state.timeline.get(self._conv_id),
            state.chat_window.get(self._window_id),
        )

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("the conversation was left, or its manager closed: use manager.conversation()")


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    # Identity tells whether anything changed: what did not is the same object in the next state.
    return all(a is b for a, b in zip(one, other, strict=True))
