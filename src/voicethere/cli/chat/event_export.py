"""The debug panel's files: new ones, named by conversation and time, for their owner's eyes alone."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

from voicethere.cli.failure import Failure

_MOST_TRIES = 100


def export(text: str, conv_id: str, ending: str, folder: Path) -> Path:
    """Write `text` to a new file in `folder`; nothing that is there is written over.

    Raises:
        Failure: it cannot be written.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", conv_id)[:60].strip("-") or "conversation"
    stem = f"voicethere-chat-{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    try:
        for number in range(_MOST_TRIES):
            path = folder / f"{stem}{f'-{number}' if number else ''}.{ending}"
            try:
                # Conversations are private: nobody else on the machine needs to read them.
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            except FileExistsError:
                continue
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            return path
    except OSError as error:
        raise Failure(f"cannot write to {folder}: {error.strerror or error}") from error
    raise Failure(f"cannot write to {folder}: there are {_MOST_TRIES} files named {stem} already")
