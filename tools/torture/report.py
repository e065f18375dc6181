"""What people read: the account of a run in a terminal, and the report of several as a page."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from tools.torture.chat_outcomes import Fate
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
_CHATS = {
    "prompts accepted": "accepted",
    "prompts in doubt": "in doubt",
    "prompts stored": "stored",
    "accepted prompts missing": "missing",
    "prompts stored twice": "twice",
    f"prompts {Fate.ANSWERED}": "answered",
    f"prompts {Fate.CUT}": "cut, and told",
    f"prompts {Fate.ERROR}": "not answered, and told",
    f"prompts {Fate.HUNG_UP}": "hung up on",
    f"prompts {Fate.NOTHING}": "neither",
    f"prompts {Fate.TWICE}": "answered twice",
    "errors untold": "errors untold",
    "timelines that differ": "timelines differ",
    "frames looked at": "frames",
    "frames out of order": "out of order",
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
    """The generated part of docs/torture.md: one row a seed, and one for its chats."""
    heads = ["seed", "killed", "paused", "partitioned", "filled", *_COLUMNS.values(), "drained", ""]
    lines = [
        BEGIN,
        "",
        f"Made by `{command}` on {platform.machine()}, {_cores()} cores, Linux {platform.release()}.",
        "",
        *_heads(heads),
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
        lines.append(_line(cells))
    lines += ["", "Of these the chats:", "", *_heads(["seed", *_CHATS.values()])]
    for outcome in outcomes:
        lines.append(_line([outcome.seed, *(outcome.account.figures[name] for name in _CHATS)]))
    first = outcomes[0]
    lines += [
        "",
        f"{len(outcomes)} runs of {first.seconds:g} s at {first.rate:g} errors/s: "
        f"{_sum(outcomes, 'accepted'):,} errors accepted, {_sum(outcomes, 'accepted but missing')} missing. "
        f"{_sum(outcomes, 'prompts accepted'):,} prompts "
        f"accepted, {_sum(outcomes, 'accepted prompts missing')} missing, "
        f"{_sum(outcomes, f'prompts {Fate.NOTHING}')} without an answer or a word, "
        f"{_sum(outcomes, f'prompts {Fate.TWICE}')} answered twice.",
        "",
    ]
    return "\n".join(lines)


def _heads(heads: Sequence[str]) -> list[str]:
    return [_line(heads), _line(["---" if not head else "---:" for head in heads])]


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _sum(outcomes: Sequence[Outcome], figure: str) -> int:
    return sum(outcome.account.figures[figure] for outcome in outcomes)


def _hits(outcome: Outcome) -> str:
    return ", ".join(f"{number} × {kind}" for kind, number in outcome.hits.items())


def _cores() -> int:
    import os

    return os.cpu_count() or 1
