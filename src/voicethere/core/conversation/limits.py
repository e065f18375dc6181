"""How much of a conversation is kept, and which ids and prompts are taken."""

from __future__ import annotations

import re

MAX_CONVERSATION_ID_CHARS = 200
MAX_ENTITY_ID_CHARS = 200
MAX_KIND_CHARS = 100
MAX_PROMPT_CHARS = 32 * 1024
MAX_PENDING_PROMPTS = 100
"""Prompts of one conversation that its session has not taken yet."""
MAX_PROMPT_SESSIONS = 3
"""So many sessions are begun for one prompt; where each has ended before it took it, the user is told."""
MAX_PROPS_BYTES = 256 * 1024
"""One entity's `props` and `meta`, as JSON."""
MAX_ENTITIES = 5_000
"""Past it the oldest (by first arrival) go."""
MAX_TIMELINE_BYTES = 16 * 1024 * 1024
"""All entities' `props` and `meta`, as JSON; past it the oldest go, but never the newest one."""
MAX_OPEN_STREAMS = 64
"""Streams of one conversation that the gateway knows how to end; past it the oldest is forgotten."""

MAX_ENDED_STREAMS = 32
"""Streams without a message whose end is told again to a client that comes back; the newest are known."""

# Line breaks, NUL and the like in an id are an accident or an attack, in a log and in a URL.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def conversation_id_problem(conv_id: str) -> str | None:
    """Why clients cannot call a conversation so, in words for whoever did; None where they can."""
    return id_problem(conv_id, MAX_CONVERSATION_ID_CHARS)


def id_problem(name: str, max_chars: int) -> str | None:
    """Why this is no id of at most `max_chars` characters; None where it is."""
    if not name:
        return "must not be empty"
    if len(name) > max_chars:
        return f"must have at most {max_chars} characters, not {len(name)}"
    if _UNPRINTABLE.search(name):
        return "must not contain control characters"
    return None


def prompt_problem(text: str) -> str | None:
    """Why this is no prompt, in words for whoever sent it; None where it is one."""
    if not text.strip():
        return "must not be empty"
    if len(text) > MAX_PROMPT_CHARS:
        return f"must have at most {MAX_PROMPT_CHARS} characters, not {len(text)}"
    return None
