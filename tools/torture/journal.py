"""Journals: files of JSON lines, each written by one call, so that they outlive the kill -9 of their writer.

The machine itself is not killed: what the kernel has, the account finds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec


class Journal:
    """Appends to `path`; several processes may, one after the other or at once.

    Example:
        >>> journal = Journal(Path("p1.jsonl"))
        >>> journal.write("minted", id="01", project="prj-1")
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._encoder = msgspec.json.Encoder()

    def write(self, event: str, **fields: Any) -> None:
        """One line: the event, when it was (seconds since the epoch), and the fields."""
        line = self._encoder.encode({"event": event, "at": round(time.time(), 3), **fields}) + b"\n"
        if os.write(self._descriptor, line) != len(line):
            raise OSError("a journal's disk is full: the account would be worth nothing")

    def close(self) -> None:
        """Nothing is written after this."""
        os.close(self._descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """Every line, in order; those that are no JSON (a library's traceback, say) are left out."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_bytes().splitlines():
        try:
            found = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if isinstance(found, dict):
            lines.append(found)
    return lines
