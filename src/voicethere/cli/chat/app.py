"""The terminal client as a Textual application: it opens the conversation, and closes it when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import App
from textual.binding import BindingType

from voicethere.chat import ChatStore, EventLog
from voicethere.cli.chat.conversation_screen import ConversationScreen
from voicethere.cli.chat.talk import OpenTalk


class ChatApp(App[None]):
    """One conversation on the whole terminal.

    `prompts` are sent once it is open. `export_folder` is where the debug panel writes its files. With
    `no_color` the terminal's own two colours are used, and what is selected is underlined.
    """

    CSS_PATH = "style.tcss"
    TITLE = "voicethere chat"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(
        self,
        store: ChatStore,
        log: EventLog,
        conv_id: str,
        opening: OpenTalk,
        *,
        prompts: Sequence[str] = (),
        export_folder: Path,
        no_color: bool = False,
    ) -> None:
        super().__init__(ansi_color=no_color)
        self._opening = opening
        self._conversation = ConversationScreen(store, log, conv_id, export_folder)
        self._prompts = tuple(prompts)
        self._no_color_wanted = no_color

    def on_mount(self) -> None:
        """Show the conversation at once; connecting goes on behind it."""
        self.set_class(self._no_color_wanted, "-no-color")
        self.push_screen(self._conversation)
        self.run_worker(self._talk(), name="conversation", exit_on_error=True)

    async def _talk(self) -> None:
        async with self._opening as talk:
            self._conversation.opened(talk)
            for prompt in self._prompts:
                self._conversation.say(prompt)
            await asyncio.Event().wait()  # until the application ends, and cancels this
