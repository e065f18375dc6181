"""One code of the catalog as a terminal shows it: headings, wrapped text, what stands in backticks marked."""

from __future__ import annotations

import sys

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from voicethere.errors import CodeInfo, ErrorScope

_MOST_COLUMNS = 100
_SCOPES = {
    ErrorScope.REMOTE: "remote: the platform sends it to the client",
    ErrorScope.LOCAL: "local: made in the client, never sent",
}


def show(info: CodeInfo) -> None:
    """Print it on standard output."""
    console = Console(file=sys.stdout, highlight=False)
    console.print(rendered(info), width=min(console.width, _MOST_COLUMNS))


def rendered(info: CodeInfo) -> RenderableType:
    """All that the catalog says of the code."""
    parts: list[RenderableType] = [Text(info.code.value, style="bold"), Text(), _facts(info)]
    for heading, words in (
        ("When", info.when),
        ("Cause", info.cause),
        ("What to do", info.remedy),
        ("What the client sees, and what comes before and after", info.follows),
    ):
        parts += [Text(), Text(heading, style="bold"), Padding(_prose(words), (0, 0, 0, 2))]
    if info.details:
        parts += [Text(), Text("In the row's details", style="bold"), Padding(_details(info), (0, 0, 0, 2))]
    return Group(*parts)


def _facts(info: CodeInfo) -> Table:
    table = _two_columns("dim")
    table.add_row("message", Text(f"“{info.message}”"))
    table.add_row("scope", Text(_SCOPES[info.scope]))
    table.add_row(
        "source", Text(info.source.value if info.source is not None else "none: it is never stored")
    )
    recoverable = "true" if info.recoverable else "false"
    table.add_row("recoverable", Text(f"{recoverable}. {info.note_on_recoverable}".rstrip(". ")))
    return table


def _details(info: CodeInfo) -> Table:
    table = _two_columns("cyan")
    for detail in info.details:
        table.add_row(detail.key, _prose(detail.meaning))
        for value, meaning in detail.values:
            table.add_row(f"  {value}", _prose(meaning))
    return table


def _two_columns(style: str) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style=style, no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _prose(words: str) -> Text:
    text = Text()
    for number, part in enumerate(words.split("`")):
        text.append(part, style="cyan" if number % 2 else "")
    return text
