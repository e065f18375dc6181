"""Times as the wire writes them: ISO-8601 UTC with milliseconds and a `Z` (contract: README.md)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def iso(moment: datetime) -> str:
    """`moment` (aware) as `2026-06-19T12:00:00.000Z`.

    Raises:
        ValueError: the moment has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a wire time needs a time zone")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_from_epoch(seconds: float) -> str:
    """Seconds since the epoch as a wire time."""
    return iso(datetime.fromtimestamp(seconds, UTC))


def later(wire_time: str, seconds: float) -> str:
    """The wire time so many seconds after this one.

    Raises:
        ValueError: it is none.
    """
    return iso(parse_iso(wire_time) + timedelta(seconds=seconds))


def parse_iso(text: str) -> datetime:
    """A wire time as an aware datetime.

    Raises:
        ValueError: not ISO-8601, or without a time zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"not a wire time (no time zone): {text!r}")
    return moment.astimezone(UTC)
