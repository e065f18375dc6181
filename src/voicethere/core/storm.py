"""Storms: which of a project's errors are stored, and which are only counted.

- Each project has a budget of recoverable errors: `burst` at once, `per_second` in the long run. What is over
  it is suppressed, and counted by project and code.
- What ended a session, and the end itself, is never suppressed. It has a budget too, a much larger one, but
  what is over that is only noted.
- Nothing is suppressed that cannot be counted: where there is no room for a further count, it is stored.
- A count is kept until it is taken; taking is due some seconds after the first one.

Pure: the clock's reading is passed in, ids are minted elsewhere. One producer process has one of these; it
knows nothing of the others'.
"""

from __future__ import annotations

import enum
from collections import OrderedDict

import msgspec

from voicethere.errors.codes import SessionErrorCode
from voicethere.wire.queue import ErrorItem, QueueItem, SessionEndedItem


class StormRules(msgspec.Struct, frozen=True, kw_only=True):
    """The budgets of one project in one producer process, and the bounds of what is remembered.

    Raises ValueError where a number makes no sense.
    """

    burst: int = 200
    per_second: float = 20.0
    lasting_burst: int = 2_000
    """For what is never suppressed: session ends, and the errors behind them."""
    lasting_per_second: float = 200.0
    summary_seconds: float = 5.0
    """How long after the first suppression the counts are due."""
    max_projects: int = 10_000
    max_counts: int = 10_000

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)}")


class Decision(enum.Enum):
    """What becomes of an item."""

    STORE = "store"
    STORE_AND_NOTE = "store_and_note"
    """It may not be suppressed, but its project is over the larger budget: an operator should know."""
    SUPPRESS = "suppress"


class Suppression(msgspec.Struct, kw_only=True):
    """So many errors of one code; `first_at` and `last_at` are wire times of when they occurred."""

    project_id: str
    code: SessionErrorCode
    count: int
    first_at: str
    last_at: str


class _Bucket(msgspec.Struct):
    tokens: float
    at: float


class _Buckets:
    """One token bucket for each project, of those that were heard of last."""

    def __init__(self, *, burst: int, per_second: float, most: int) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._most = most
        self._of: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, project_id: str, now: float) -> bool:
        """Whether there was a token left."""
        bucket = self._of.get(project_id)
        if bucket is None:
            if len(self._of) >= self._most:
                # Whoever was silent the longest begins anew, most likely with what it would have by now.
                self._of.popitem(last=False)
            bucket = self._of[project_id] = _Bucket(self._burst, now)
        else:
            self._of.move_to_end(project_id)
            elapsed = max(0.0, now - bucket.at)
            bucket.tokens = min(self._burst, bucket.tokens + elapsed * self._per_second)
            bucket.at = now
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True

    def give_back(self, project_id: str) -> None:
        """What was taken came to nothing."""
        bucket = self._of.get(project_id)
        if bucket is not None:
            bucket.tokens = min(self._burst, bucket.tokens + 1.0)


class StormGate:
    """Decides for each item, and keeps the counts.

    Example:
        >>> gate = StormGate(StormRules())
        >>> gate.decide(item, now=clock.monotonic())
        <Decision.STORE: 'store'>
    """

    def __init__(self, rules: StormRules) -> None:
        self._rules = rules
        self._sampled = _Buckets(burst=rules.burst, per_second=rules.per_second, most=rules.max_projects)
        self._lasting = _Buckets(
            burst=rules.lasting_burst, per_second=rules.lasting_per_second, most=rules.max_projects
        )
        self._counts: dict[tuple[str, SessionErrorCode], Suppression] = {}
        self._since: float | None = None

    def decide(self, item: QueueItem, now: float) -> Decision:
        """`now` is of a clock that never jumps, in seconds. Nothing is counted by this: see `count`."""
        if isinstance(item, ErrorItem) and item.record.recoverable:
            project_id = item.record.project_id
            if self._sampled.take(project_id, now):
                return Decision.STORE
            key = (project_id, item.record.code)
            if key in self._counts or len(self._counts) < self._rules.max_counts:
                return Decision.SUPPRESS
            return Decision.STORE_AND_NOTE
        if isinstance(item, ErrorItem | SessionEndedItem):
            within = self._lasting.take(_project_of(item), now)
            return Decision.STORE if within else Decision.STORE_AND_NOTE
        return Decision.STORE

    def give_back(self, item: QueueItem) -> None:
        """An item that was to be stored was not: it will be decided again."""
        if isinstance(item, ErrorItem) and item.record.recoverable:
            self._sampled.give_back(item.record.project_id)
        elif isinstance(item, ErrorItem | SessionEndedItem):
            self._lasting.give_back(_project_of(item))

    def count(self, item: ErrorItem, now: float) -> None:
        """This one is suppressed for good."""
        record = item.record
        if self._since is None:
            self._since = now
        key = (record.project_id, record.code)
        found = self._counts.get(key)
        if found is None:
            self._counts[key] = Suppression(
                project_id=record.project_id,
                code=record.code,
                count=1,
                first_at=record.occurred_at,
                last_at=record.occurred_at,
            )
            return
        found.count += 1
        found.first_at = min(found.first_at, record.occurred_at)
        found.last_at = max(found.last_at, record.occurred_at)

    def due_in(self, now: float) -> float | None:
        """Seconds until the counts are to be taken; 0 where they are overdue, None where there are none."""
        if self._since is None:
            return None
        return max(0.0, self._since + self._rules.summary_seconds - now)

    def take_counts(self) -> list[Suppression]:
        """All counts, in the order in which they began; they begin anew."""
        taken = list(self._counts.values())
        self._counts = {}
        self._since = None
        return taken


def _project_of(item: ErrorItem | SessionEndedItem) -> str:
    return item.record.project_id if isinstance(item, ErrorItem) else item.project_id
