"""The errors of the conversation, newest first; Enter shows all that is known of one."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from voicethere.chat import ChatErrorRecord, ChatStore, selectors
from voicethere.cli.chat import keys
from voicethere.cli.chat.error_words import clock_time, error_facts, error_words
from voicethere.cli.chat.lines import KeysLine, TitleLine
from voicethere.cli.chat.reading_screen import ReadingScreen
from voicethere.cli.chat.shown import shown_line


class HistoryScreen(Screen[None]):
    """Follows the store while it is open."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(keys.BACK.binding, "dismiss", keys.BACK.short, show=False)
    ]

    def __init__(self, store: ChatStore, conv_id: str) -> None:
        super().__init__()
        self._store = store
        self._conv_id = conv_id
        self._shown: tuple[ChatErrorRecord, ...] = ()

    def compose(self) -> ComposeResult:
        yield TitleLine("Errors, newest first", id="title")
        yield Static("No error so far.", id="none", markup=False)
        yield OptionList(id="errors", markup=False)
        yield KeysLine([keys.OPEN, keys.BACK])

    def on_mount(self) -> None:
        """Show the errors, and those that come."""
        unsubscribe = self._store.subscribe(lambda state, action: self._show())
        self._unsubscribe = unsubscribe
        self._show(force=True)

    def on_unmount(self) -> None:
        """The store need not tell any more."""
        self._unsubscribe()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Everything about one error."""
        for record in self._shown:
            if record.id == event.option_id:
                self.app.push_screen(ReadingScreen(error_words(record).title, error_facts(record)))
                return

    def _show(self, *, force: bool = False) -> None:
        history = selectors.select_error_history(self._store.state, self._conv_id)
        if history is self._shown and not force:
            return
        self._shown = history
        errors = self.query_one("#errors", OptionList)
        self.query_one("#none").display = not history
        errors.display = bool(history)
        at = errors.highlighted
        selected = None if at is None else errors.get_option_at_index(at).id
        errors.clear_options()
        newest_first = tuple(reversed(history))
        # An id may have come from a server; two of the same must not bring the list down.
        known: dict[str, Option] = {}
        for record in newest_first:
            known.setdefault(record.id, Option(_line(record), id=record.id))
        errors.add_options(known.values())
        if known:
            errors.highlighted = list(known).index(selected) if selected in known else 0
            errors.focus()


def _line(record: ChatErrorRecord) -> Content:
    words = error_words(record)
    repeats = (record.details or {}).get("repeats")
    again = f" ×{repeats + 1}" if isinstance(repeats, int) else ""
    return Content.assemble(
        (f"{clock_time(record.at)} ", "dim"),
        (shown_line(f"{words.title}{again}"), "bold"),
        f": {shown_line(words.message, 300)}",
    )
