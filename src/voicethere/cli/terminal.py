"""What commands print: tables for people, tab-separated lines for pipes, JSON on request.

Names and messages come from agents and clients, so everything printed is cleaned first: a control
character in an error message must not move the cursor, recolour the screen or fake a line of output.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import click

# C0, DEL, C1 (U+009B starts a terminal command as well as ESC [), and what reorders text.
_C0_BUT_LINES = "\x00-\x08\x0b-\x1f"
_OTHERS = "\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(f"[\x00-\x1f{_OTHERS}]")
_UNSAFE_BUT_LINES = re.compile(f"[{_C0_BUT_LINES}{_OTHERS}]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def safe_line(text: str) -> str:
    """`text` on one line: control characters, tabs and line breaks are shown as escapes."""
    return _UNSAFE.sub(_escaped, text)


def safe_lines(text: str) -> str:
    """Like `safe_line`, but line breaks and tabs stay."""
    return _UNSAFE_BUT_LINES.sub(_escaped, text)


def to_people() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def note(text: str) -> None:
    """Progress and remarks, on stderr."""
    click.echo(safe_line(text), err=True)


def line(text: str) -> None:
    """One line of result, on stdout."""
    click.echo(safe_line(text))


def json_document(value: Any) -> None:
    """`value` as indented JSON on stdout, with nothing in it that a terminal would obey."""
    import json

    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo(_UNSAFE_BUT_LINES.sub(lambda found: f"\\u{ord(found.group()):04x}", text))


def rows(columns: Sequence[str], values: Sequence[Sequence[str | None]], *, nothing: str) -> None:
    """Rows as a table on a terminal, tab-separated without a heading in a pipe.

    `nothing` is said on stderr, to people only, where there are no rows.
    """
    if not to_people():
        for row in values:
            click.echo("\t".join(safe_line(cell or "") for cell in row))
        return
    if not values:
        note(nothing)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in values:
        table.add_row(*(Text(safe_line(cell or "-")) for cell in row))
    Console(file=sys.stdout, highlight=False).print(table)


def record(pairs: Sequence[tuple[str, str | None]]) -> None:
    """One thing: `name: value` lines on a terminal, tab-separated in a pipe."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        if to_people():
            click.echo(f"{name:<{width}}  {safe_line(value or '-')}")
        else:
            click.echo(f"{name}\t{safe_line(value or '')}")
