"""Ids of errors: unique, and in the order in which one session's errors came about.

Rows are sorted by the millisecond in which they occurred and then by id; two errors of one session may well
share a millisecond, and their order says which led to which.
"""

from __future__ import annotations

import secrets


def error_id(moment: float, number: int) -> str:
    """32 hex digits: `moment` (epoch seconds) in milliseconds, `number` in the session, chance."""
    milliseconds = int(moment * 1000) & 0xFFFF_FFFF_FFFF
    return f"{milliseconds:012x}{number & 0xFFFF:04x}{secrets.token_hex(8)}"
