"""Hooks of the docs' build.

Long codes (IDLE_TIMEOUT_CALLBACK_FAILED) may break behind an underscore. Each cell of a table carries the
heading of its column, which a phone shows before the cell: there the cells of a row stand below one another.
"""

from __future__ import annotations

import html
import re
from typing import Any

_CODE = re.compile(r"(?<=>)(\s*[A-Z]+(?:_[A-Z]+)+\s*)(?=<)")
_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_HEADING = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
_ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<td\b")
_TAG = re.compile(r"<[^>]+>")


def on_page_content(content: str, **_: Any) -> str:
    """The page's own HTML, with `data-label` in the cells of its tables."""
    return _TABLE.sub(lambda table: _labelled(table[0]), content)


def on_post_page(output: str, **_: Any) -> str:
    """The page's HTML, with a place to break in every such code that is an element's whole text."""
    return _CODE.sub(lambda code: code[0].replace("_", "_<wbr>"), output)


def _labelled(table: str) -> str:
    labels = [_TAG.sub("", heading).strip() for heading in _HEADING.findall(table)]

    def row(found: re.Match[str]) -> str:
        column = iter(labels)

        def cell(_: re.Match[str]) -> str:
            label = next(column, "")
            # What a heading holds is escaped already, but for quotes.
            return f'<td data-label="{html.unescape(label)}"' if _plain(label) else "<td"

        return _CELL.sub(cell, found[0])

    return _ROW.sub(row, table)


def _plain(label: str) -> bool:
    """Whether it says something, and can stand in an attribute as it is."""
    return bool(label) and not set(html.unescape(label)) & set('"<>&')
