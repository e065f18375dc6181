"""What can be the cause of an error, besides an exception of our own.

An agent's failure reaches the runner as text from another process (`HandlerFailure`) or as the way that
process ended (`Crash`). `convert.make_record` turns any of them into a record.
"""

from __future__ import annotations

import enum

import msgspec


class CrashKind(enum.StrEnum):
    """The `crash_kind` in a row's details."""

    RAISED = "raised"
    EXITED = "exited"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    UNRESPONSIVE = "unresponsive"
    LOAD_FAILURE = "load_failure"


class HandlerFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A hook of the agent raised. `message` is `Type: words`, `stack` the traceback as text; both raw."""

    hook: str
    message: str
    stack: str
    last_log_lines: tuple[str, ...] = ()


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's process ended, was ended, or never got to work. All text in it is raw.

    `message` says more where there is more to say (the import error, what was waited for); `signal` and
    `exit_status` are set for the kinds that have one; `stack` for a load failure.
    """

    kind: CrashKind
    message: str = ""
    stack: str | None = None
    exit_status: int | None = None
    signal: int | None = None
    last_log_lines: tuple[str, ...] = ()


Cause = BaseException | HandlerFailure | Crash | str
"""A plain string is the operator's message where there is nothing else to tell."""
