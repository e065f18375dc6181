"""Reads the fenced blocks of a tutorial: what to run, and what to write into which file."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(msgspec.Struct, frozen=True):
    """One fenced block. `title` is what its info string names (`title="agent.py"`), or empty."""

    language: str
    title: str
    body: str

    @property
    def commands(self) -> list[str]:
        """The lines of a console block that begin with a prompt."""
        return [line[2:] for line in self.body.splitlines() if line.startswith("$ ")]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a Markdown page, in order."""
    found = []
    for match in _FENCE.finditer(page.read_text()):
        language, _, rest = match["info"].partition(" ")
        title = re.search(r'title="([^"]*)"', rest)
        found.append(Block(language, title[1] if title else "", match["body"]))
    return found
