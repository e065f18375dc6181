"""When a project has used up its sessions of a month, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from voicethere.core.usage import UsageExceeded, check_monthly_usage, month_begun


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("now", "begun"),
    [
        ("2026-06-19T12:34:56", "2026-06-01T00:00:00.000Z"),
        ("2026-12-31T23:59:59", "2026-12-01T00:00:00.000Z"),
        ("2028-02-29T00:00:00", "2028-02-01T00:00:00.000Z"),
    ],
)
def test_the_month_is_that_of_utc(now: str, begun: str) -> None:
    assert month_begun(at(now)) == begun


@pytest.mark.parametrize(("limit", "made"), [(0, 10**6), (5, 4), (1, 0)])
def test_below_the_limit_and_without_one_nothing_is_said(limit: int, made: int) -> None:
    check_monthly_usage(limit, made, at("2026-06-19T12:00:00"))


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        ("2026-11-30T23:59:00", 60),
        ("2026-12-31T23:59:59.999", 1),
        ("2026-12-31T00:00:00", 86_400),
        ("2028-02-28T00:00:00", 2 * 86_400),
    ],
)
def test_past_it_the_next_month_is_waited_for(now: str, seconds: int) -> None:
    with pytest.raises(UsageExceeded, match="may start 5 sessions a month") as caught:
        check_monthly_usage(5, 5, at(now))
    assert (caught.value.limit, caught.value.retry_after_seconds) == (5, seconds)
