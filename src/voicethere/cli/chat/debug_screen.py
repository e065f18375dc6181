"""The debug panel: what goes on underneath a conversation, by family; pause, detail, export.

Reads the event log. Pausing is this screen's own: the log goes on meanwhile, within its bounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from voicethere.chat import EventLog, EventLogEntry
from voicethere.cli.chat import keys
from voicethere.cli.chat.error_words import clock_time
from voicethere.cli.chat.event_export import export
from voicethere.cli.chat.lines import KeysLine, TitleLine
from voicethere.cli.chat.reading_screen import ReadingScreen
from voicethere.cli.chat.shown import shown_json_lines, shown_line
from voicethere.cli.failure import Failure

_DIGITS = keys.FAMILIES.binding.split(",")
_DRAW_SECONDS = 0.1


class DebugScreen(Screen[None]):
    """The entries of one conversation, oldest first; it follows the newest while that one is selected."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(keys.BACK.binding, "dismiss", keys.BACK.short, show=False),
        Binding(keys.PAUSE.binding, "pause", keys.PAUSE.short, show=False),
        Binding(keys.EXPORT_TEXT.binding, "export('txt')", keys.EXPORT_TEXT.short, show=False),
        Binding(keys.EXPORT_YAML.binding, "export('yaml')", keys.EXPORT_YAML.short, show=False),
        Binding(keys.ALL_FAMILIES.binding, "all_families", keys.ALL_FAMILIES.short, show=False),
        Binding(keys.FORGET.binding, "forget", keys.FORGET.short, show=False),
        *(Binding(digit, f"family({digit})", "family", show=False) for digit in _DIGITS),
    ]

    def __init__(self, log: EventLog, conv_id: str, export_folder: Path) -> None:
        super().__init__()
        self._log = log
        self._conv_id = conv_id
        self._export_folder = export_folder
        self._families: list[str] = []  # in the order in which they were first seen: each keeps its digit
        self._hidden: set[str] = set()
        self._held: tuple[EventLogEntry, ...] | None = None  # what is shown while paused
        self._listed: tuple[EventLogEntry, ...] = ()
        self._cut_anew = False
        self._drawing = False

    def compose(self) -> ComposeResult:
        yield TitleLine("Debug", id="title")
        yield Static(id="families", markup=False)
        yield OptionList(id="entries", markup=False)
        yield KeysLine(
            [
                keys.BACK,
                keys.OPEN,
                keys.PAUSE,
                keys.FAMILIES,
                keys.EXPORT_TEXT,
                keys.EXPORT_YAML,
                keys.ALL_FAMILIES,
                keys.FORGET,
            ]
        )

    def on_mount(self) -> None:
        """Show what there is, and what comes."""
        self._unsubscribe = self._log.subscribe(lambda entry: self._changed(), self._conv_id)
        self.query_one(OptionList).focus()
        self._draw()

    def on_unmount(self) -> None:
        """The log need not tell any more."""
        self._unsubscribe()

    def on_resize(self) -> None:
        """Lines are cut for the width that there is."""
        self._cut_anew = True
        self._changed()

    def action_pause(self) -> None:
        """Hold the list, or let it go on."""
        self._held = self._log.entries(self._conv_id) if self._held is None else None
        self._draw()

    def action_family(self, number: int) -> None:
        """Hide or show the family with this digit."""
        if number <= len(self._families):
            self._hidden ^= {self._families[number - 1]}
            self._draw()

    def action_all_families(self) -> None:
        """Show all families."""
        self._hidden.clear()
        self._draw()

    def action_forget(self) -> None:
        """Forget the entries so far."""
        self._log.clear(self._conv_id)
        if self._held is not None:
            self._held = ()
        self._draw()

    def action_export(self, kind: str) -> None:
        """Write what the log holds of the families that are shown to a file."""
        shown = [family for family in self._families if family not in self._hidden]
        families = shown if self._hidden else None
        give = self._log.export_yaml if kind == "yaml" else self._log.export_text
        try:
            path = export(give(self._conv_id, families), self._conv_id, kind, self._export_folder)
        except Failure as problem:
            self.notify(shown_line(problem.message, 300), severity="error", markup=False)
            return
        self.notify(shown_line(f"Written to {path}", 300), markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Everything about one entry."""
        for entry in self._listed:
            if str(entry.number) == event.option_id:
                facts = [
                    ("At", clock_time(entry.at_ms, date=True)),
                    ("Family and type", f"{entry.family}, {entry.type}"),
                    ("Summary", entry.summary),
                    ("Payload", shown_json_lines(entry.payload)),
                ]
                self.app.push_screen(ReadingScreen(f"Entry {entry.number}: {entry.type}", facts))
                return

    def _changed(self) -> None:
        # A stream logs hundreds of frames a second; people read a few.
        if not self._drawing:
            self._drawing = True
            self.set_timer(_DRAW_SECONDS, self._draw)

    def _draw(self) -> None:
        self._drawing = False
        if not self.is_attached:
            return
        newest = self._log.entries(self._conv_id)
        entries = newest if self._held is None else self._held
        for entry in entries:
            if entry.family not in self._families:
                self._families.append(entry.family)
        self._list(tuple(entry for entry in entries if entry.family not in self._hidden))
        state = "running"
        if self._held is not None:
            behind = sum(1 for entry in newest if not entries or entry.number > entries[-1].number)
            state = f"PAUSED, {behind:,} more" if behind else "PAUSED"
        self.query_one(TitleLine).show(f"{len(self._listed):,}/{len(entries):,} {state}")
        signs = [
            f"{number}\N{NO-BREAK SPACE}{'□' if family in self._hidden else '■'}\N{NO-BREAK SPACE}"
            f"{shown_line(family, 20)}"
            for number, family in enumerate(self._families[: len(_DIGITS)], 1)
        ]
        self.query_one("#families", Static).update(Content("  ".join(signs) or "Nothing happened yet."))

    def _list(self, entries: tuple[EventLogEntry, ...]) -> None:
        lines = self.query_one(OptionList)
        at = lines.highlighted
        following = at is None or at >= len(self._listed) - 1
        selected = None if at is None or not self._listed else self._listed[min(at, len(self._listed) - 1)]
        known = self._listed
        self._listed = entries
        if known and entries[: len(known)] == known and not self._cut_anew:
            entries = entries[len(known) :]
        else:
            lines.clear_options()
        self._cut_anew = False
        lines.add_options(Option(self._line(entry), id=str(entry.number)) for entry in entries)
        if not self._listed:
            return
        if following or selected is None:
            lines.highlighted = len(self._listed) - 1
        else:
            later = [i for i, entry in enumerate(self._listed) if entry.number >= selected.number]
            lines.highlighted = later[0] if later else len(self._listed) - 1

    def _line(self, entry: EventLogEntry) -> Content:
        width = max(20, self.app.size.width - 4)
        return Content.assemble(
            (f"{clock_time(entry.at_ms)} ", "dim"),
            (shown_line(entry.type, 40), "bold"),
            f" {shown_line(entry.summary, width)}",
        ).truncate(width, ellipsis=True)
