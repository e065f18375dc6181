"""What was read after a run, as values: rows of the platform's tables, and errors in runners' logs."""

from __future__ import annotations

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `session_errors`."""

    id: str
    project_id: str
    session_id: str
    source: str
    code: str
    message: str
    recoverable: bool
    occurred_at_ms: int


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `sessions`. `ended_at_ms` None: it has no end."""

    id: str
    project_id: str
    status: str
    runner_id: str | None
    end_reason: str | None
    failed: bool
    ended_at_ms: int | None


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `dead_letters`."""

    problem: str
    data: str


class LoggedError(msgspec.Struct, frozen=True, kw_only=True):
    """A `session_error` in a runner's log: minted by that runner's process, `instance`."""

    id: str
    session_id: str
    project_id: str
    instance: str
