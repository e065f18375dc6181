"""What the screens ask of a conversation: `voicethere.chat.Conversation` is one, and so is a test's own."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Talk(Protocol):
    """An open conversation. Whatever fails is in the store when the call ends."""

    @property
    def window_id(self) -> str:
        """The window whose "the assistant is thinking" follows `send`."""

    async def send(self, text: str) -> object:
        """Submit a prompt."""

    async def retry(self) -> object:
        """Try again what failed."""

    async def reconnect(self) -> object:
        """Close the connection and open it again."""

    def clear_error(self) -> object:
        """No error is current any more."""


OpenTalk = AbstractAsyncContextManager[Talk]
"""Entered when the client starts, left when it ends."""
