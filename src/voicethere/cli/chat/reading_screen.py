"""A page to read: headings and texts, scrolled with the keys. The help and every detail are such pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from voicethere.cli.chat import keys
from voicethere.cli.chat.lines import KeysLine, TitleLine
from voicethere.cli.chat.shown import shown_line, shown_text

Facts = Sequence[tuple[str, str]]


class ReadingScreen(Screen[None]):
    """`facts` are headings and texts; neither needs to be escaped."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(f"{keys.BACK.binding},enter", "dismiss", keys.BACK.short, show=False)
    ]

    def __init__(self, title: str, facts: Facts) -> None:
        super().__init__()
        self._title = title
        self._facts = facts

    def compose(self) -> ComposeResult:
        yield TitleLine(shown_line(self._title), id="title")
        with VerticalScroll(id="page"):
            for heading, text in self._facts:
                yield Static(_fact(heading, text), markup=False, classes="fact")
        yield KeysLine([keys.BACK, keys.UP, keys.DOWN])


def help_page() -> ReadingScreen:
    """Every key, and how to read the screen."""
    facts = [(f"{key.shown}  {key.short}", key.help) for key in keys.CONVERSATION]
    facts += [
        ("Tab", "Go between your message and the transcript; there the arrow keys scroll."),
        (
            "The lines at the bottom",
            "Above your message: the model, the last turn's tokens in and out, its time and speed, and the "
            "total. What does not fit a narrow terminal is left out.",
        ),
        (
            "Text from elsewhere",
            "Control characters and terminal commands in it are shown as escapes, such as \\x1b.",
        ),
    ]
    return ReadingScreen("Keys", facts)


def _fact(heading: str, text: str) -> Content:
    return Content.assemble((shown_line(heading, 100), "bold"), "\n", shown_text(text))
