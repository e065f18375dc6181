"""The report: for people as it grows, tab-separated in a pipe, or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from voicethere.cli.doctor.findings import Check, Checked, Level
from voicethere.cli.terminal import safe_line

_MARKS = {Level.OK: ("✓", "green"), Level.WARNING: ("!", "yellow"), Level.FAILED: ("✗", "red")}
_MOST_COLUMNS = 110
ENGINES = ("redis", "postgresql")
"""What the names of checks begin with that `voicethere up` does without."""


def plain(line: Checked) -> None:
    """One line for a pipe: name, level, what was found, what to do."""
    click.echo("\t".join(safe_line(text) for text in (line.name, line.level.value, line.found, line.todo)))


class Pretty:
    """A report on a terminal: each line as soon as it is known."""

    def __init__(self, checks: Sequence[Check]) -> None:
        from rich.console import Console

        self._console = Console(file=sys.stdout, highlight=False)
        self._width = max(len(check.name) for check in checks)

    def line(self, line: Checked) -> None:
        """One finding, with what to do below it."""
        from rich.table import Table
        from rich.text import Text

        mark, colour = _MARKS[line.level]
        found = Text(safe_line(line.found))
        if line.todo:
            found.append(f"\n→ {safe_line(line.todo)}", style=colour)
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(width=self._width, style="bold")
        table.add_column(overflow="fold")
        table.add_row(Text(mark, style=colour), Text(line.name), found)
        self._console.print(table, width=min(self._console.width, _MOST_COLUMNS))

    def summary(self, words: str) -> None:
        """The last line."""
        self._console.print(f"\n{words}")


def as_json(lines: Sequence[Checked]) -> dict[str, Any]:
    """`ok` is false where something is missing that `voicethere up` needs."""
    return {
        "ok": all(line.level is not Level.FAILED for line in lines),
        "checks": [msgspec.to_builtins(line) for line in lines],
    }


def summary(lines: Sequence[Checked]) -> str:
    """What it comes to, in a sentence."""
    lacking = [line.name for line in lines if line.level is Level.FAILED]
    warned = [line.name for line in lines if line.level is Level.WARNING]
    if lacking and all(name.startswith(ENGINES) for name in lacking):
        return f"`voicethere serve` does not work with these engines yet: {', '.join(lacking)}."
    if lacking:
        return f"`voicethere up` does not work here yet: {', '.join(lacking)}."
    if warned:
        return f"`voicethere up` works here; look at: {', '.join(warned)}."
    return "`voicethere up` works here, with everything."
