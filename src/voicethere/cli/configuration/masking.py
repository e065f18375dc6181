"""Settings as they may be shown: without passwords, whatever state a value is in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from voicethere.cli.configuration.settings import described

MASK = "***"
# Up to the last @: a password may hold any character that somebody forgot to quote.
_USER_PART = re.compile(r"(://).*@")
_SECRET_PARAMETER = re.compile(r"([?&][^=&#\s]*(?:pass|secret|token|key)[^=&#\s]*=)[^&#\s]*", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """`text` with the user part and the secret parameters of every URL in it masked."""
    return _SECRET_PARAMETER.sub(rf"\1{MASK}", _USER_PART.sub(rf"\1{MASK}@", text))


def shown(key: str, value: Any) -> Any:
    """This value of this setting as plain data for people and JSON; secrets are masked."""
    if isinstance(value, Path):
        return str(value)
    if key == "ice_servers":
        servers = msgspec.to_builtins(value)
        return [{name: MASK if name == "credential" else one for name, one in s.items()} for s in servers]
    if isinstance(value, str) and described()[key].setting.secret:
        return without_passwords(value)
    return msgspec.to_builtins(value)
