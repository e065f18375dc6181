"""Reading the text of a user's chat turn."""

from __future__ import annotations

import json


def parse_chat_text(message: object) -> str | None:
    """The text of a `chat` message, or None where it is not one.

    Takes `ctx.message` (parsed JSON) as well as `ctx.raw` (its text).

    Example:
        >>> parse_chat_text({"type": "chat", "text": "hello"})
        'hello'
        >>> parse_chat_text({"type": "volume", "level": 3}) is None
        True
    """
    if isinstance(message, str):
        try:
            message = json.loads(message)
        except (ValueError, RecursionError):
            return None
    if not isinstance(message, dict) or message.get("type") != "chat":
        return None
    text = message.get("text")
    return text if isinstance(text, str) else None
