"""Errors and suppressions as rows: values in the order of their tables' columns, with sane moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voicethere.adapters.store import columns
from voicethere.adapters.store.bulk_insert import Values
from voicethere.adapters.store.columns import storable
from voicethere.errors.records import ErrorRecord
from voicethere.wire.queue import SuppressedItem

CLOCK_AHEAD_MS = 60 * 1000
CLOCK_BEHIND_MS = 30 * 24 * 3600 * 1000


def error_row(record: ErrorRecord, now_ms: int) -> Values:
    """One record as a row that is committed at `now_ms`.

    An `occurred_at` outside of what a sane clock says is moved to the nearest moment within (so that it
    cannot hide the newest errors, or be hidden); what was reported stays in the details.
    """
    details: Mapping[str, Any] = record.details
    occurred_at_ms, sane = _moment(record.occurred_at, now_ms)
    if not sane:
        details = {**details, "reported_occurred_at": record.occurred_at}
    context = record.customer_context
    return (
        storable(record.id),
        storable(record.project_id),
        storable(record.session_id),
        None if record.build_id is None else storable(record.build_id),
        record.source.value,
        record.code.value,
        storable(record.message),
        None if record.client_message is None else storable(record.client_message),
        None if record.stack is None else storable(record.stack),
        record.recoverable,
        None if context is None else columns.to_json(context),
        columns.to_json(details),
        occurred_at_ms,
        now_ms,
    )


def suppression_row(item: SuppressedItem, now_ms: int) -> Values:
    """One count of suppressed errors as a row; its moments are kept as sane as those of errors."""
    return (
        storable(item.id),
        storable(item.project_id),
        item.code.value,
        item.count,
        _moment(item.first_at, now_ms)[0],
        _moment(item.last_at, now_ms)[0],
    )


def _moment(reported: str, now_ms: int) -> tuple[int, bool]:
    """A reported moment, or the nearest that a sane clock may say; whether it is as reported."""
    try:
        reported_ms = columns.to_ms(reported)
    except ValueError:
        return now_ms, False
    moment_ms = min(max(reported_ms, now_ms - CLOCK_BEHIND_MS), now_ms + CLOCK_AHEAD_MS)
    return moment_ms, moment_ms == reported_ms
