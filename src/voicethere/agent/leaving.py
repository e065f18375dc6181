"""How the child's process ends by its own will."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from voicethere.wire.ipc import OUT_OF_MEMORY_STATUS


def leave(status: int) -> NoReturn:
    """End the process now, whatever threads still run; what was printed gets out."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed, or the runner is gone
    os._exit(status)


def leave_if_out_of_memory(error: BaseException) -> None:
    """A MemoryError that nobody caught is the process's end, as the runner must learn."""
    if isinstance(error, MemoryError):
        leave(OUT_OF_MEMORY_STATUS)


def exit_status(error: SystemExit) -> int:
    """The status that the interpreter would exit with."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1
