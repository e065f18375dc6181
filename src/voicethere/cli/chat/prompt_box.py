"""Where the message is written: Enter sends it, ^J begins a new line, ↑ brings sent ones back."""

from __future__ import annotations

import re

from textual import events
from textual.message import Message
from textual.widgets import TextArea

from voicethere.cli.chat import keys

MAX_PROMPT_CHARS = 100_000
_MOST_REMEMBERED = 50
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class PromptBox(TextArea):
    """A text area that grows with what is in it."""

    class Submitted(Message):
        """The user wants this sent."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, *, id: str) -> None:
        super().__init__(
            id=id,
            soft_wrap=True,
            compact=True,
            highlight_cursor_line=False,
            placeholder="Write a message …",
        )
        self.cursor_blink = False  # a redraw twice a second is a lot for a slow line
        self._sent: list[str] = []
        self._recalled = 0  # how many back from the newest; 0 while writing

    async def _on_key(self, event: events.Key) -> None:
        # Not as bindings with priority: those run ahead of the characters that were typed just before.
        what = {keys.SEND.binding: self.submit, keys.NEW_LINE.binding: self.new_line}.get(event.key)
        if what is not None:
            event.stop()
            event.prevent_default()  # the text area's own handler is called next
            what()

    def submit(self) -> None:
        """Ask for what is written to be sent, if there is anything."""
        text = self.text.strip()
        if not text:
            return
        if len(text) > MAX_PROMPT_CHARS:
            self.notify(
                f"A message has at most {MAX_PROMPT_CHARS:,} characters, this one {len(text):,}.",
                severity="error",
            )
            return
        self.post_message(self.Submitted(text))

    def taken(self) -> None:
        """What was written is on its way: an empty box, and ↑ brings the text back."""
        text = self.text.strip()
        if text and text not in self._sent[-1:]:
            self._sent = [*self._sent, text][-_MOST_REMEMBERED:]
        self._recalled = 0
        self.text = ""

    def put(self, text: str) -> None:
        """Replace what is written, the cursor behind it."""
        self.text = text
        self.move_cursor(self.document.end)

    def new_line(self) -> None:
        """A line break at the cursor."""
        self.insert("\n")

    def action_cursor_up(self, select: bool = False) -> None:
        """Up a line; on the first one, the message that was sent before."""
        if not select and self.wrapped_document.location_to_offset(self.cursor_location).y == 0:
            self._recall(self._recalled + 1)
            return
        super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Down a line; on the last one, back towards what was being written."""
        last = self.wrapped_document.height - 1
        at_end = self.wrapped_document.location_to_offset(self.cursor_location).y >= last
        if not select and self._recalled and at_end:
            self._recall(self._recalled - 1)
            return
        super().action_cursor_down(select)

    async def _on_paste(self, event: events.Paste) -> None:
        # A clipboard may hold terminal commands; the screen shows what is in the box as it is.
        event.text = _CONTROL.sub("", event.text.replace("\r\n", "\n").replace("\r", "\n"))

    def _recall(self, back: int) -> None:
        written = self.text.strip()
        if self._recalled == 0 and written and written not in self._sent[-1:]:
            if back > 0:
                return  # something unsent is here: it would be lost
            self._recalled = 0
        if back > len(self._sent):
            return
        self._recalled = back
        self.put(self._sent[-back] if back else "")
