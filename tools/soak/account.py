"""What was done and caused, and every difference between that and what clients and API say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

_MOST_DIFFERENCES = 50


class Account:
    """Counts sessions by kind, errors caused by code, requests; keeps the first differences as words.

    `tell` hears of each difference when it is found.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.sessions: Counter[str] = Counter()
        self.caused: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.deploys = 0
        self.conversations = 0
        self.difference_count = 0
        self.differences: list[str] = []

    def differs(self, words: str) -> None:
        """Something is not as it must be."""
        self.difference_count += 1
        self._tell(f"DIFFERENCE: {words}")
        if len(self.differences) < _MOST_DIFFERENCES:
            self.differences.append(words)

    def driven(self) -> dict[str, float]:
        """For a sample: what growth may be explained by."""
        return {
            "started sessions": float(self.sessions.total()),
            "caused errors": float(self.caused.total()),
            "deploys": float(self.deploys),
            "conversations": float(self.conversations),
        }
