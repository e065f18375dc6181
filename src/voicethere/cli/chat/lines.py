"""The one-line displays around the transcript, which fit themselves to the width that there is."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content
from textual.widget import Widget

from voicethere.cli.chat.keys import Key
from voicethere.cli.chat.state_words import fitting


class PiecesLine(Widget):
    """Pieces on one line, the first first; those that do not fit are left out."""

    DEFAULT_CSS = "PiecesLine { height: 1; padding: 0 1; }"

    def __init__(self, *, id: str, separator: str = " · ") -> None:
        super().__init__(id=id)
        self._separator = separator
        self._pieces: tuple[str, ...] = ()

    def show(self, pieces: Sequence[str]) -> None:
        """Show these. They must have been escaped."""
        if tuple(pieces) != self._pieces:
            self._pieces = tuple(pieces)
            self.refresh()

    def render(self) -> Content:
        return Content(fitting(self._pieces, self.content_size.width, self._separator))


class TitleLine(Widget):
    """The conversation's id on the left, cut where it must be, and the connection on the right, whole."""

    DEFAULT_CSS = "TitleLine { height: 1; padding: 0 1; }"

    def __init__(self, title: str, *, id: str) -> None:
        super().__init__(id=id)
        self._title = title
        self._status = ""

    def show(self, status: str) -> None:
        """Show this connection state."""
        if status != self._status:
            self._status = status
            self.refresh()

    def render(self) -> Content:
        width = self.content_size.width
        room = max(0, width - cell_len(self._status) - 1)
        title = Content(self._title).truncate(room, ellipsis=True)
        gap = max(1, width - title.cell_length - cell_len(self._status))
        return Content.assemble(title, " " * gap, (self._status, "bold"))


class KeysLine(PiecesLine):
    """The keys of a screen, the most wanted first."""

    def __init__(self, keys: Sequence[Key]) -> None:
        super().__init__(id="keys", separator="  ")
        self.show([f"{key.shown} {key.short}" for key in keys])
