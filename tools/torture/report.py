"""What people read: the account of a run in a terminal, and the report of several as a page."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from tools.torture.run import Outcome

BEGIN = "<!-- report -->"
_COLUMNS = {
    "minted": "minted",
    "accepted": "accepted",
    "stored": "stored",
    "accepted but missing": "missing",
    "duplicates": "twice",
    "out of its project": "out of project",
    "dead letters": "dead",
    "sessions started": "sessions",
    "sessions that died": "died",
    "their clients told": "told",
    "untold": "untold",
    "without an end": "no end",
}


def shown(outcome: Outcome) -> str:
    """One run's account as lines."""
    account = outcome.account
    lines = [f"seed {outcome.seed}: {_hits(outcome)}; drained in {outcome.drained_seconds:g} s", ""]
    width = max(len(name) for name in account.figures)
    lines += [f"  {name:{width}}  {number:>8}" for name, number in account.figures.items()]
    if account.remarks:
        lines += ["", "  worth a look, and no difference:", *(f"  · {remark}" for remark in account.remarks)]
    if account.differences:
        lines += ["", "  DIFFERENCES:", *(f"  ✗ {difference}" for difference in account.differences)]
    lines += ["", f"  {'PASSED: accepted = stored, everybody was told' if outcome.passed else 'FAILED'}"]
    return "\n".join(lines)


def report(outcomes: Sequence[Outcome], *, command: str) -> str:
    """The generated part of docs/torture.md: one row a seed."""
    heads = ["seed", "killed", "paused", "partitioned", "filled", *_COLUMNS.values(), "drained", ""]
    aligned = ["---:"] * (len(heads) - 1) + ["---"]
    lines = [
        BEGIN,
        "",
        f"Made by `{command}` on {platform.machine()}, {_cores()} cores, Linux {platform.release()}.",
        "",
        f"| {' | '.join(heads)} |",
        f"| {' | '.join(aligned)} |",
    ]
    for outcome in outcomes:
        hits, figures = outcome.hits, outcome.account.figures
        cells = [
            outcome.seed,
            hits["kill"],
            hits["pause"],
            hits["partition"] + hits["cut"],
            hits["fill"] + hits["starve"],
            *(figures[name] for name in _COLUMNS),
            f"{outcome.drained_seconds:g} s",
            "passed" if outcome.passed else "FAILED",
        ]
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    first = outcomes[0]
    total = sum(outcome.account.figures["accepted"] for outcome in outcomes)
    lines += [
        "",
        f"{len(outcomes)} runs of {first.seconds:g} s at {first.rate:g} errors/s: {total:,} errors accepted, "
        f"{sum(outcome.account.figures['accepted but missing'] for outcome in outcomes)} missing.",
        "",
    ]
    return "\n".join(lines)


def _hits(outcome: Outcome) -> str:
    return ", ".join(f"{number} × {kind}" for kind, number in outcome.hits.items())


def _cores() -> int:
    import os

    return os.cpu_count() or 1
