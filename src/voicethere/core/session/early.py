"""What is kept for an agent that is not there yet: how much of it."""

from __future__ import annotations

from voicethere.core.session.events import AgentInput
from voicethere.wire.ipc import DataChannelBinary, DataChannelMessage, SpeechEventMessage

MAX_EARLY_INPUTS = 256
MAX_EARLY_SIZE = 4 * 1024 * 1024
"""Bytes of binary data, characters of text."""


def fits(kept: tuple[AgentInput, ...], message: AgentInput) -> bool:
    """Whether `message` may be kept behind those that are."""
    return len(kept) < MAX_EARLY_INPUTS and sum(map(_size, (*kept, message))) <= MAX_EARLY_SIZE


def _size(message: AgentInput) -> int:
    match message:
        case DataChannelMessage():
            return len(message.raw)
        case DataChannelBinary():
            return len(message.data)
        case SpeechEventMessage():
            return len(message.text or "")
