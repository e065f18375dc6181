"""What may grow, how much, and why: a rule for every measure, and the verdict on a run.

Judged are the samples at rest, when nobody but the three residents is there: noise of what happens to be
alive is not in them. A measure that no rule names is a mistake here, not a pass.
"""

from __future__ import annotations

import fnmatch
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tools.soak.measures import MEGABYTE, Sample
from tools.soak.trend import Points, growth, slope

LATE_SHARE = 0.5
"""The part at the end that is judged for memory: caches and the allocator's own have filled by then."""
SHORT_FACTOR = 3.0
_FEW_RESTS = 6


@dataclass(frozen=True)
class Flat:
    """May grow by at most `most` plus `share` of its level, over the time that is judged.

    Of what is `late` only the second half is judged, and where there are too few samples for that, all of
    them by a bound that is `SHORT_FACTOR` times as wide.
    """

    most: float
    share: float = 0.0
    late: bool = False


@dataclass(frozen=True)
class Explained:
    """Grows with what is counted as `driver`, at most `most_each` for each, and `spare` in all."""

    driver: str
    most_each: float
    why: str
    spare: float = 0.0


@dataclass(frozen=True)
class Capped:
    """May be anything up to `most`, at any time."""

    most: float
    why: str


@dataclass(frozen=True)
class Verdict:
    """`moved` is what was judged: growth in all, for each of the driver (explained), or the most (capped)."""

    measure: str
    first: float
    last: float
    moved: float
    bound: float
    words: str
    good: bool


_THREADS_WHY = "a process has up to 12 for the database and some for files, and keeps what was needed once"

RULES: Sequence[tuple[str, Flat | Explained | Capped]] = (
    # The server's connections come and go with what its pools keep.
    ("postgresql/megabytes", Flat(8.0, 0.1, late=True)),
    (
        "postgresql/descriptors",
        Capped(3600, "a connection keeps the files open that it has read: some 60 of each of 60 connections"),
    ),
    ("postgresql/*", Flat(80)),
    # A process makes a connection to the database, and a thread for it, when so many are needed at once (12
    # at most), and keeps it. When that happens depends on how busy the machine is.
    ("chat gateways/descriptors", Flat(8)),
    ("control/threads", Capped(24, _THREADS_WHY)),
    ("session services/threads", Capped(48, _THREADS_WHY)),
    ("chat gateways/threads", Flat(8)),
    ("*/descriptors", Flat(4)),
    ("*/threads", Flat(2)),
    ("*/processes", Flat(0.5)),
    ("*/megabytes", Flat(2.0, 0.03, late=True)),
    ("scratch/entries", Flat(0.5)),
    ("redis data/bytes", Flat(256 * 1024, 0.1, late=True)),
    ("redis keys/entries", Flat(4)),
    ("spool/bytes", Flat(0)),
    ("queue/items", Flat(0)),
    ("queue/bytes", Flat(64 * 1024)),
    ("* wal/bytes", Capped(96 * MEGABYTE, "checkpoints come at 64 MB")),
    ("unfinished sessions/rows", Flat(0.5)),
    ("dead_letters/rows", Flat(0)),
    ("error_suppressions/rows", Flat(0)),
    ("session_errors/rows", Explained("caused errors", 1.0, "one row for each error that was caused")),
    ("sessions/rows", Explained("started sessions", 1.0, "one row a session")),
    ("conversations/rows", Explained("conversations", 1.0, "one row a conversation")),
    (
        "conversation_entities/rows",
        Explained("conversations", 10.0, "what was said, and the errors", spare=1_000),
    ),
    ("conversation_prompts/rows", Flat(0)),
    ("builds/rows", Explained("deploys", 1.0, "one row a build")),
    ("deployments/rows", Explained("deploys", 1.0, "one row a deploy")),
    (
        "database/bytes",
        Explained("started sessions", 6144, "rows and their indexes", spare=256 * 1024),
    ),
    ("log files/bytes", Explained("started sessions", 2048, "log lines (level WARNING)", spare=64 * 1024)),
    (
        "unpacked builds/entries",
        Explained("deploys", 2.0, "one folder for each build, on each runner that ran it"),
    ),
    ("stored bundles/bytes", Explained("deploys", 16 * 1024, "every build is kept, for rollbacks")),
)
DRIVERS = ("started sessions", "caused errors", "deploys", "conversations")
_NO_MEASURES = frozenset({"seconds", "at_rest", *DRIVERS})


def judge(samples: Sequence[Sample]) -> list[Verdict]:
    """One verdict for each measure. The first sample at rest is the end of warming up.

    Raises:
        ValueError: there is too little to judge, or a measure without a rule.
    """
    rests = [sample for sample in samples if sample["at_rest"]]
    if len(rests) < 2:
        raise ValueError("nothing to judge: fewer than two samples at rest")
    measures = sorted({name for sample in rests for name in sample} - _NO_MEASURES)
    return [_verdict(measure, rests, samples) for measure in measures]


def _verdict(measure: str, rests: Sequence[Sample], samples: Sequence[Sample]) -> Verdict:
    rule = next((rule for pattern, rule in RULES if fnmatch.fnmatchcase(measure, pattern)), None)
    values = [sample.get(measure, 0.0) for sample in rests]
    match rule:
        case Flat():
            points = [(sample["seconds"], value) for sample, value in zip(rests, values, strict=True)]
            if rule.late and len(points) >= _FEW_RESTS:
                points = points[int(len(points) * (1 - LATE_SHARE)) :]
            moved = growth(points)
            bound = rule.most + rule.share * statistics.median(values)
            words = "flat"
            if rule.late and len(points) < len(values):
                words = "flat in the second half"
            elif rule.late:
                bound *= SHORT_FACTOR
                words = "flat, for a run that is too short to leave warming up out"
        case Explained():
            moved = _each([(sample[rule.driver], v) for sample, v in zip(rests, values, strict=True)], rule)
            bound = rule.most_each
            words = f"{rule.why}, each {_noun(rule.driver)}"
        case Capped():
            moved, bound = max(sample.get(measure, 0.0) for sample in samples), rule.most
            words = f"never more than that: {rule.why}"
        case None:
            raise ValueError(f"{measure} has no rule")
    good = moved <= bound + 1e-9
    return Verdict(measure, values[0], values[-1], moved, bound, words, good)


def _each(points: Points, rule: Explained) -> float:
    """The slope against the driver; what stays below `spare` in all is no slope (files grow in steps)."""
    if points[-1][1] - points[0][1] <= rule.spare:
        return 0.0
    return slope(points)


def _noun(driver: str) -> str:
    return {
        "started sessions": "session",
        "caused errors": "error",
        "deploys": "deploy",
        "conversations": "conversation",
    }[driver]
