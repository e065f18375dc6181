"""What a runner can be asked about itself, as plain numbers: who exports them, and how, is not known here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from voicethere.errors import SessionErrorCode


class RunnerCounts:
    """Counted since the runner began."""

    def __init__(self) -> None:
        self.errors: Counter[SessionErrorCode] = Counter()
        self.ignored_signals: Counter[str] = Counter()
        self.hosted = 0
        self.queue_put_failures = 0
        """Attempts to put an error or an end that neither the queue nor the spool took."""

    def signal_ignored(self, reason: str) -> None:
        """Count a client's signal that came to nothing."""
        self.ignored_signals[reason] += 1


class RunnerGauges(msgspec.Struct, frozen=True, kw_only=True):
    """A look at a runner.

    `sessions` of at most `capacity` are hosted; `children` are the agents' processes that are alive, of which
    `warm_children` wait for a session. The rest is counted since the runner began: sessions `hosted`, those
    that have ended among them, `errors` recorded by code, `queue_put_failures` (attempts that neither queue
    nor spool took), `refused` assignments by failure code, `ignored_signals` of clients by reason, and warm
    children that were taken by a session, or lost before one came.
    """

    sessions: int
    hosted: int
    capacity: int
    draining: bool
    children: int
    warm_children: int
    warm_taken: int
    warm_lost: int
    errors: Mapping[str, int]
    queue_put_failures: int
    refused: Mapping[str, int]
    ignored_signals: Mapping[str, int]
