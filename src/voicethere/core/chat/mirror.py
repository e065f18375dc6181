"""Errors of conversations as entities of their timelines, for clients that want a transcript of both.

Off unless asked for: our gateway does the same, and names the entity alike, so that it is not shown twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from voicethere.core.chat import actions, selectors
from voicethere.core.chat.actions import Action
from voicethere.core.chat.entities import TimelineEntity
from voicethere.core.chat.errors import ChatErrorRecord
from voicethere.core.chat.sem_context import DispatchingStore
from voicethere.core.chat.session_actions import PushError
from voicethere.core.chat.state import ChatState

ERROR_KIND = "error"


class ObservableStore(DispatchingStore, Protocol):
    """The part of `ChatStore` that tells of changes."""

    def subscribe(self, listener: Callable[[ChatState, Action], object]) -> Callable[[], None]:
        """Call `listener(state, action)` after each change; call what this returns to stop that."""


def error_entity(record: ChatErrorRecord) -> TimelineEntity:
    """The entity that shows an error, named as its record is (for a session error: the stored row's id)."""
    props = {
        "message": record.message,
        "code": record.code,
        "kind": record.kind.value,
        "stage": record.stage.value,
        "recoverable": record.recoverable,
    }
    return TimelineEntity(record.id, ERROR_KIND, record.at, props=props)


def mirror_errors(store: ObservableStore) -> Callable[[], None]:
    """From now on add an `error` entity for every error that is pushed; call what this returns to stop that.

    A known id is left alone: a repeat adds nothing, nor does an error that the gateway has put there.
    """

    def after(state: ChatState, action: Action) -> None:
        if not isinstance(action, PushError):
            return
        record = selectors.select_current_error(state, action.conv_id)
        if record is not None:
            store.dispatch(actions.add_entity(action.conv_id, error_entity(record)))

    return store.subscribe(after)
