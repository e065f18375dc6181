"""How many sessions a project may start in a month, and when the next month begins. Pure.

The month is that of UTC; every session counts that was made in it, however it ended.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from voicethere.errors.times import iso


class UsageExceeded(Exception):
    """The project has had as many sessions this month as it may have.

    The next month begins in `retry_after_seconds`.
    """

    def __init__(self, limit: int, retry_after_seconds: int) -> None:
        super().__init__(f"the project may start {limit} sessions a month, and has")
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


def month_begun(now: float) -> str:
    """When the month of this moment (epoch seconds) began, as a wire time."""
    return iso(_month(now))


def check_monthly_usage(limit: int, made: int, now: float) -> None:
    """`made` is how many sessions the project has made since `month_begun`; a `limit` of 0 is none.

    Raises:
        UsageExceeded: it may not start another one this month.
    """
    if not limit or made < limit:
        return
    month = _month(now)
    following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    seconds = (following - datetime.fromtimestamp(now, UTC)).total_seconds()
    raise UsageExceeded(limit, max(1, math.ceil(seconds)))


def _month(now: float) -> datetime:
    moment = datetime.fromtimestamp(now, UTC)
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
