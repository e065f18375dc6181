"""The current error in words, above the prompt: what happened, what to do, and the keys that do it."""

from __future__ import annotations

from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from voicethere.chat import ChatErrorRecord
from voicethere.cli.chat import keys
from voicethere.cli.chat.error_words import error_words
from voicethere.cli.chat.shown import shown_line


class ErrorBar(Widget):
    """Hidden while no error is current. At most two fifths of the screen high: the history has the rest."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._record: ChatErrorRecord | None = None
        self.display = False

    def show(self, record: ChatErrorRecord | None) -> None:
        """Show this error, or none."""
        if record is self._record:
            return
        self._record = record
        self.display = record is not None
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines(width, viewport.height))

    def render(self) -> Content:
        return Content("\n").join(self._lines(self.content_size.width, self.app.size.height))

    def _lines(self, columns: int, screen_rows: int) -> list[Content]:
        if self._record is None:
            return []
        return _lines(self._record, max(10, columns), max(3, screen_rows * 2 // 5))


def _lines(record: ChatErrorRecord, columns: int, rows: int) -> list[Content]:
    words = error_words(record)
    do = [keys.RETRY] if record.recoverable else []
    keys_line = Content(
        "  ".join(f"{key.shown} {key.short}" for key in (*do, keys.CLEAR, keys.ERRORS))
    ).truncate(columns, ellipsis=True)
    repeats = (record.details or {}).get("repeats")
    title = f"✗ {words.title}" + (f" (again, {repeats} times)" if isinstance(repeats, int) else "")
    wrapped = [
        *Content.styled(shown_line(title), "bold").wrap(columns),
        *Content(shown_line(words.message, 600)).wrap(columns),
        *Content(f"→ {shown_line(words.advice, 600)}").wrap(columns),
    ]
    if len(wrapped) > rows - 1:
        room = rows - 2
        more = Content.styled(f"… all of it: {keys.ERRORS.shown}", "dim")
        wrapped = [*wrapped[:room], more]
    return [*wrapped, keys_line.stylize("bold")]
