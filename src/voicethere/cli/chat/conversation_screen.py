"""The conversation: transcript, current error, usage, prompt, and the keys.

Draws what the store holds and asks the `Talk` for everything that is done; it decides nothing about either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import Static

from voicethere.chat import ChatHttpError, ChatStore, EventLog, actions, selectors
from voicethere.cli.chat import keys
from voicethere.cli.chat.debug_screen import DebugScreen
from voicethere.cli.chat.error_bar import ErrorBar
from voicethere.cli.chat.history_screen import HistoryScreen
from voicethere.cli.chat.lines import KeysLine, PiecesLine, TitleLine
from voicethere.cli.chat.prompt_box import PromptBox
from voicethere.cli.chat.reading_screen import help_page
from voicethere.cli.chat.shown import shown_line
from voicethere.cli.chat.state_words import connection_words, usage_pieces
from voicethere.cli.chat.talk import Talk
from voicethere.cli.chat.transcript import Transcript
from voicethere.core.chat.state import ChatState
from voicethere.core.clock import SystemClock


class ConversationScreen(Screen[None]):
    """The screen that the client starts with."""

    AUTO_FOCUS = "#prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(keys.RETRY.binding, "retry", keys.RETRY.short, priority=True),
        Binding(keys.CLEAR.binding, "clear_error", keys.CLEAR.short, priority=True),
        Binding(keys.RECONNECT.binding, "reconnect", keys.RECONNECT.short, priority=True),
        Binding(keys.ERRORS.binding, "errors", keys.ERRORS.short, priority=True),
        Binding(keys.DEBUG.binding, "debug", keys.DEBUG.short, priority=True),
        Binding(keys.SUGGESTION.binding, "suggestion", keys.SUGGESTION.short, priority=True),
        Binding(keys.UP.binding, "scroll(-1)", keys.UP.short, priority=True),
        Binding(keys.DOWN.binding, "scroll(1)", keys.DOWN.short, priority=True),
        Binding(keys.HELP.binding, "keys", keys.HELP.short, priority=True),
        Binding(keys.QUIT.binding, "app.quit", keys.QUIT.short, priority=True),
    ]

    def __init__(self, store: ChatStore, log: EventLog, conv_id: str, export_folder: Path) -> None:
        super().__init__()
        self._store = store
        self._log = log
        self._conv_id = conv_id
        self._export_folder = export_folder
        self._talk: Talk | None = None
        self._open = asyncio.Event()
        self._drawn: ChatState | None = None
        self._drawing = False
        self._sending = asyncio.Lock()
        self._suggested = 0

    def compose(self) -> ComposeResult:
        yield TitleLine(shown_line(self._conv_id), id="title")
        yield Transcript(id="transcript")
        yield PiecesLine(id="suggestions", separator="  │  ")
        yield ErrorBar(id="error")
        yield PiecesLine(id="usage")
        with Horizontal(id="compose"):
            yield Static("› ")
            yield PromptBox(id="prompt")
        yield KeysLine([keys.HELP, keys.QUIT, keys.ERRORS, keys.DEBUG, keys.RECONNECT, keys.NEW_LINE])

    def on_mount(self) -> None:
        """Draw, and draw again after each change."""
        self._unsubscribe = self._store.subscribe(lambda state, action: self._changed())
        self._draw()

    def on_unmount(self) -> None:
        """The store need not tell any more."""
        self._unsubscribe()

    def opened(self, talk: Talk) -> None:
        """The conversation can be talked to from now on."""
        self._talk = talk
        self._open.set()
        self._changed()

    def say(self, text: str) -> None:
        """Send a prompt, behind those that are on their way; once the conversation is open."""
        if self._talk is None:
            self._say("Your message goes out as soon as the conversation is open.")
        self.query_one(Transcript).follow()
        self._run(lambda: self._send(text))

    # What the keys do

    def on_prompt_box_submitted(self, event: PromptBox.Submitted) -> None:
        """Send what was written."""
        self._consume_suggestion(event.text)
        self.query_one(PromptBox).taken()
        self.say(event.text)

    def action_retry(self) -> None:
        """Try again what failed."""
        talk = self._opened()
        error = selectors.select_current_error(self._store.state, self._conv_id)
        if talk is None:
            return
        if error is None:
            self._say("There is no error to retry after.")
        elif not error.recoverable:
            self._say(f"Trying again will not help. {keys.ERRORS.shown} says what will.")
        else:
            self._run(talk.retry)

    def action_clear_error(self) -> None:
        """The error goes; the history keeps it."""
        talk = self._opened()
        if talk is not None:
            talk.clear_error()

    def action_reconnect(self) -> None:
        """Close the connection and open it again."""
        talk = self._opened()
        if talk is not None:
            self._run(talk.reconnect)

    def action_errors(self) -> None:
        """The history of errors."""
        self.app.push_screen(HistoryScreen(self._store, self._conv_id))

    def action_debug(self) -> None:
        """The debug panel."""
        self.app.push_screen(DebugScreen(self._log, self._conv_id, self._export_folder))

    def action_keys(self) -> None:
        """The help page."""
        self.app.push_screen(help_page())

    def action_suggestion(self) -> None:
        """The next suggestion, as if it had been written."""
        suggestions = selectors.select_suggestions(self._store.state, self._conv_id)
        if suggestions:
            self._suggested = self._suggested % len(suggestions)
            self.query_one(PromptBox).put(suggestions[self._suggested])
            self._suggested += 1

    def action_scroll(self, pages: int) -> None:
        """The transcript, a page up or down."""
        transcript = self.query_one(Transcript)
        if pages < 0:
            transcript.scroll_page_up(animate=False)
        else:
            transcript.scroll_page_down(animate=False)

    async def _send(self, text: str) -> None:
        async with self._sending:  # in the order in which they were written
            await self._open.wait()
            assert self._talk is not None
            try:
                await self._talk.send(text)
            except ChatHttpError as refused:
                box = self.query_one(PromptBox)
                again = refused.status is None or refused.status == 429 or refused.status >= 500
                if not again and not box.text:
                    box.put(text)  # to be changed: sent as it is, it will be refused again
            except ValueError as problem:
                self._say(str(problem))

    def _run(self, what: Callable[[], Awaitable[object]]) -> None:
        async def recorded() -> None:
            try:
                await what()
            except ChatHttpError:
                pass  # it is in the store by now, and so on the screen

        self.run_worker(recorded(), exit_on_error=True)

    def _opened(self) -> Talk | None:
        if self._talk is None:
            self._say("Not connected yet: one moment.")
        return self._talk

    def _say(self, words: str) -> None:
        self.notify(shown_line(words, 300), markup=False, timeout=4)

    def _consume_suggestion(self, text: str) -> None:
        for entity in selectors.select_timeline_entities(self._store.state, self._conv_id):
            items = entity.props.get("items") if entity.kind == "suggestions" else None
            if isinstance(items, list) and text in items:
                self._store.dispatch(
                    actions.consume_suggestions(self._conv_id, entity.id, int(SystemClock().now() * 1000))
                )

    # What is drawn

    def _changed(self) -> None:
        # Many changes in one go (a snapshot, a flood of frames) are drawn once.
        if not self._drawing:
            self._drawing = True
            self.call_later(self._draw)

    def _draw(self) -> None:
        self._drawing = False
        if not self.is_attached:
            return
        state, conv_id = self._store.state, self._conv_id
        self.query_one("#title", TitleLine).show(connection_words(state, conv_id))
        thinking = self._talk is not None and selectors.select_should_show_pending_ai_placeholder(
            state, self._talk.window_id, conv_id
        )
        self.query_one(Transcript).show(
            selectors.select_renderable_timeline_entities(state, conv_id), thinking=thinking
        )
        suggestions = selectors.select_suggestions(state, conv_id)
        line = self.query_one("#suggestions", PiecesLine)
        line.display = bool(suggestions)
        line.show([f"{keys.SUGGESTION.shown} {shown_line(text, 60)}" for text in suggestions])
        self.query_one(ErrorBar).show(selectors.select_current_error(state, conv_id))
        self.query_one("#usage", PiecesLine).show(usage_pieces(state, conv_id))
