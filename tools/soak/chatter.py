"""One chat client of the soak: holds a conversation, and checks what became of each prompt.

Its timeline must be exactly what was said, its errors exactly those that it caused. Sockets come and go; the
conversation stays, and whoever comes back knows it from the snapshot.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

from tools.soak.caller import World
from tools.soak.settling import PATIENCE, Surprise, settle
from voicethere.chat import ChatStore, Conversation, ConversationManager
from voicethere.testing.platform_process import Deployed


class Chatter:
    """Made for one conversation. `said` is what its timeline must show: texts, and codes of errors."""

    def __init__(self, world: World, deployed: Deployed) -> None:
        self._world = world
        self._deployed = deployed
        self._conv_id = f"soak-{uuid.uuid4().hex}"
        self.said: list[str] = []
        self.told: list[str] = []
        self.session_id = ""
        """Of the newest session that the timeline names; empty before there is one."""

    @contextlib.asynccontextmanager
    async def present(self) -> AsyncIterator[Conversation]:
        """Connected, as the client of a new page would be: it knows what is there from the snapshot alone."""
        base = f"{self._world.chat_gateway()}/c/{self._deployed.client_key}"
        async with (
            ConversationManager(ChatStore(), base, reconnect=None) as manager,
            manager.conversation(self._conv_id) as conversation,
        ):
            await self.sees(conversation)
            yield conversation
            self.told += [error.code or error.kind for error in conversation.error_history]

    async def says(self, conversation: Conversation, text: str, answer: str) -> None:
        """Say it, and read the answer."""
        self.said += [text, answer]
        await conversation.send(text)
        await self.sees(conversation)

    async def sees(self, conversation: Conversation) -> None:
        """Wait until the timeline is what was said, and nobody is writing.

        Raises:
            Surprise: it is not within `PATIENCE`.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                async for _ in conversation.changes():
                    if _shown(conversation) == self.said and not conversation.is_streaming:
                        self._note_session(conversation)
                        return
        except TimeoutError:
            shown = _shown(conversation)
            errors = [error.message for error in conversation.error_history]
            raise Surprise(f"the timeline shows {shown}, not {self.said}; errors: {errors}") from None

    def _note_session(self, conversation: Conversation) -> None:
        for entity in conversation.entities:
            if entity.kind == "error":
                self.session_id = str(entity.props["sessionId"])
            elif entity.props["role"] != "user":
                self.session_id = entity.id.rpartition("-")[0]

    async def settle(self, *, stored: list[str], reason: str) -> None:
        """The session's end in the API, and what the client was told.

        Raises:
            Surprise: it did not end, or not so.
        """
        operator = self._world.operator
        await settle(operator, self._deployed.project_id, self.session_id, stored=stored, reason=reason)
        if self.told != stored:
            raise Surprise(f"the client was told {self.told}, not {stored}")


def _shown(conversation: Conversation) -> list[str]:
    return [str(one.props.get("content", one.props.get("code"))) for one in conversation.entities]
