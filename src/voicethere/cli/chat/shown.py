"""Text that agents, servers and users wrote, made fit for a terminal.

Nothing in it is obeyed: control characters, terminal commands and what reorders text are shown as escapes
(`cli.terminal`), and the pieces are plain text for Textual (`Content`), never markup.
"""

from __future__ import annotations

import json
from typing import Any

from voicethere.cli.terminal import safe_line, safe_lines

MAX_SHOWN_CHARS = 20_000
"""Of one message. A terminal is no place to read more; `--json-events` gives all."""
_TAB_COLUMNS = 4


def shown_text(text: str, limit: int = MAX_SHOWN_CHARS) -> str:
    """Several lines of text, cut visibly at `limit` characters."""
    cut = len(text) - limit
    if cut > 0:
        text = text[:limit]
    plain = safe_lines(text.replace("\r\n", "\n")).expandtabs(_TAB_COLUMNS)
    return f"{plain}\n[{cut:,} more characters]" if cut > 0 else plain


def shown_line(text: str, limit: int = 200) -> str:
    """Text on one line, cut with an ellipsis at `limit` characters."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return safe_line(text)


def shown_json(value: Any, limit: int = 200) -> str:
    """JSON data on one line, cut at `limit` characters."""
    return shown_line(json.dumps(value, ensure_ascii=False, default=str), limit)


def shown_json_lines(value: Any, limit: int = MAX_SHOWN_CHARS) -> str:
    """JSON data, indented, cut visibly at `limit` characters."""
    return shown_text(json.dumps(value, ensure_ascii=False, indent=2, default=str), limit)
