"""What can happen to a window: which conversation it shows, and whether it waits for an answer."""

from __future__ import annotations

import msgspec

from voicethere.core.chat import checks


class SetWindowConversation(msgspec.Struct, frozen=True):
    """The window shows this conversation."""

    window_id: str
    conv_id: str


class BeginAwaitingAi(msgspec.Struct, frozen=True):
    """The user has written in this window."""

    window_id: str
    conv_id: str


class ClearAwaitingAi(msgspec.Struct, frozen=True):
    """The window waits no longer."""

    window_id: str


class ClearWindowState(msgspec.Struct, frozen=True):
    """The window is gone."""

    window_id: str


def set_window_conversation(window_id: str, conv_id: str) -> SetWindowConversation:
    """The window shows `conv_id`; where it showed another, it waits for nothing any more."""
    return SetWindowConversation(_window(window_id), checks.identifier(conv_id, "conv_id"))


def begin_awaiting_ai(window_id: str, conv_id: str) -> BeginAwaitingAi:
    """The user writes: the placeholder shows from that message to the first entity of anyone else."""
    return BeginAwaitingAi(_window(window_id), checks.identifier(conv_id, "conv_id"))


def clear_awaiting_ai(window_id: str) -> ClearAwaitingAi:
    """The placeholder goes, as after a prompt that was not accepted."""
    return ClearAwaitingAi(_window(window_id))


def clear_window_state(window_id: str) -> ClearWindowState:
    """The window's entry is gone."""
    return ClearWindowState(_window(window_id))


def _window(window_id: object) -> str:
    return checks.identifier(window_id, "window_id")
