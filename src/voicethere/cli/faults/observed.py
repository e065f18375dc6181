"""What a fault really gave, and how that differs from what it must."""

from __future__ import annotations

import msgspec

from voicethere.cli.faults.expected import Expected, Heard
from voicethere.errors import SessionErrorEnvelope


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One session with one fault, seen from all sides.

    `client` are the codes that `on_session_error` got, "~" behind those that call themselves recoverable;
    `told_ms` is from the fault to the first of them. `cli` are the codes that the command line shows.
    """

    client: list[str] = []
    rows: list[str] = []
    cli: list[str] = []
    source: str | None = None
    crash_kind: str | None = None
    failure: str | None = None
    heard: Heard = "nothing"
    end_reason: str = "none"
    disturbed: bool = False
    told_ms: float | None = None
    problem: str | None = None


def shown(error: SessionErrorEnvelope) -> str:
    """An error as the table writes it."""
    return error.code + ("~" if error.recoverable else "")


def differences(expected: Expected, mode: str, observed: Observed) -> list[str]:
    """What is not as it must be, in words; empty where the fault was explained."""
    if observed.problem is not None:
        return [observed.problem]
    wanted = {
        "client": expected.client,
        "rows": expected.rows,
        "cli": expected.rows,
        "source": expected.source,
        "crash_kind": expected.crash_kind,
        "failure": expected.failure,
        "heard": expected.heard if mode == "voice" else "nothing",
        "end_reason": expected.end_reason,
        "disturbed": expected.disturbs,
    }
    return [
        f"{what}: {getattr(observed, what)}, not {value}"
        for what, value in wanted.items()
        if getattr(observed, what) != value
    ]
