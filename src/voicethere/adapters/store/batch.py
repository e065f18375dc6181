"""What comes off the queue becomes rows, in one transaction: errors, ends of sessions, dead letters.

The rules: an error is stored at most once, on its id. The first end of a session wins. What cannot be
stored as what it is (unreadable, of a session that is not there) is buried as a dead letter that says why,
and never takes its neighbours with it. A batch that comes again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from typing import Any

from sqlalchemy import Connection, Table, exc, select, update

from voicethere.adapters.store import columns
from voicethere.adapters.store.database import is_unavailable
from voicethere.adapters.store.records import CommittedBatch
from voicethere.adapters.store.tables import (
    dead_letters,
    error_suppressions,
    projects,
    session_errors,
    sessions,
)
from voicethere.errors.records import ErrorRecord
from voicethere.wire.queue import ErrorItem, QueueItem, SessionEndedItem, SuppressedItem, encode

MAX_DEAD_LETTER_BYTES = 64 * 1024
MAX_PROBLEM_CHARACTERS = 1000
MAX_COUNT = 2**53
CLOCK_AHEAD_MS = 60 * 1000
CLOCK_BEHIND_MS = 30 * 24 * 3600 * 1000

_LOOKUP = 500

Dead = tuple[bytes, str]
Row = dict[str, Any]
Candidate = tuple[Row, QueueItem]


class _Unstorable(Exception):
    """This item cannot become a row; the words say why."""


def commit_batch(
    connection: Connection, now_ms: int, items: Sequence[QueueItem], dead: Sequence[Dead]
) -> CommittedBatch:
    """Store all that can be stored and bury the rest; the caller commits."""
    known = _projects_of_sessions(connection, items)
    known_projects = _known_projects(connection, items)
    buried = list(dead)
    errors: list[Candidate] = []
    suppressions: list[Candidate] = []
    ends: list[SessionEndedItem] = []
    for item in items:
        try:
            if isinstance(item, ErrorItem):
                record = item.record
                _check_session(known, record.session_id, record.project_id)
                errors.append((error_row(record, now_ms), item))
            elif isinstance(item, SuppressedItem):
                suppressions.append((_suppression_row(item, known_projects, now_ms), item))
            else:
                _check_session(known, item.session_id, item.project_id)
                ends.append(item)
        except _Unstorable as problem:
            buried.append((encode(item), str(problem)))
    inserted, unstorable = _insert(connection, session_errors, errors)
    suppressed, unstorable_counts = _insert(connection, error_suppressions, suppressions)
    buried += unstorable + unstorable_counts
    ended = sum(_end(connection, item, now_ms) for item in ends)
    return CommittedBatch(
        inserted=inserted,
        duplicates=len(errors) - inserted - len(unstorable),
        dead=_bury(connection, buried, now_ms),
        ended=ended,
        suppressed=suppressed,
    )


def error_row(record: ErrorRecord, now_ms: int) -> Row:
    """One record as a row that is committed at `now_ms`.

    An `occurred_at` outside of what a sane clock says is moved to the nearest moment within (so that it
    cannot hide the newest errors, or be hidden); what was reported stays in the details.
    """
    details: Mapping[str, Any] = record.details
    occurred_at_ms, sane = _sane_ms(record.occurred_at, now_ms)
    if not sane:
        details = {**details, "reported_occurred_at": record.occurred_at}
    context = record.customer_context
    return {
        "id": record.id,
        "project_id": record.project_id,
        "session_id": record.session_id,
        "build_id": record.build_id,
        "source": record.source.value,
        "code": record.code.value,
        "message": record.message,
        "client_message": record.client_message,
        "stack_trace": record.stack,
        "recoverable": record.recoverable,
        "customer_context": None if context is None else columns.to_json(context),
        "details": columns.to_json(details),
        "occurred_at_ms": occurred_at_ms,
        "created_at_ms": now_ms,
    }


def _sane_ms(reported: str, now_ms: int) -> tuple[int, bool]:
    """A reported moment, moved to the nearest that a sane clock may say; whether that is as reported."""
    try:
        reported_ms = columns.to_ms(reported)
    except ValueError:
        return now_ms, False
    moment_ms = min(max(reported_ms, now_ms - CLOCK_BEHIND_MS), now_ms + CLOCK_AHEAD_MS)
    return moment_ms, moment_ms == reported_ms


def _suppression_row(item: SuppressedItem, known_projects: Set[str], now_ms: int) -> Row:
    if item.project_id not in known_projects:
        raise _Unstorable(f"there is no project {item.project_id[:64]!r} (it may be deleted)")
    if not 1 <= item.count <= MAX_COUNT:
        raise _Unstorable(f"a count of suppressed errors is from 1 to {MAX_COUNT}")
    return {
        "id": item.id,
        "project_id": item.project_id,
        "code": item.code.value,
        "count": item.count,
        "first_at_ms": _sane_ms(item.first_at, now_ms)[0],
        "last_at_ms": _sane_ms(item.last_at, now_ms)[0],
    }


def _known_projects(connection: Connection, items: Sequence[QueueItem]) -> set[str]:
    """Those of the suppressions' projects that are there (errors and ends have sessions to go by)."""
    wanted = sorted({item.project_id for item in items if isinstance(item, SuppressedItem)})
    found: set[str] = set()
    for start in range(0, len(wanted), _LOOKUP):
        query = (
            select(projects.c.id)
            .where(projects.c.id.in_(wanted[start : start + _LOOKUP]))
            .with_for_update(read=True, key_share=True)
        )
        found.update(connection.execute(query).scalars())
    return found


def _session_id(item: QueueItem) -> str | None:
    if isinstance(item, ErrorItem):
        return item.record.session_id
    return None if isinstance(item, SuppressedItem) else item.session_id


def _projects_of_sessions(connection: Connection, items: Sequence[QueueItem]) -> dict[str, str]:
    wanted = list({session_id for item in items if (session_id := _session_id(item)) is not None})
    found: dict[str, str] = {}
    for start in range(0, len(wanted), _LOOKUP):
        # The lock matters on PostgreSQL only: nobody may delete the project before this commits.
        query = (
            select(sessions.c.id, sessions.c.project_id)
            .where(sessions.c.id.in_(wanted[start : start + _LOOKUP]))
            .with_for_update(read=True, key_share=True)
        )
        found.update((row.id, row.project_id) for row in connection.execute(query))
    return found


def _check_session(known: Mapping[str, str], session_id: str, project_id: str) -> None:
    actual = known.get(session_id)
    if actual is None:
        raise _Unstorable(f"there is no session {session_id[:64]!r} (it, or its project, may be deleted)")
    if actual != project_id:
        raise _Unstorable(f"the session {session_id[:64]!r} is not of the project {project_id[:64]!r}")


def _insert(connection: Connection, table: Table, candidates: Sequence[Candidate]) -> tuple[int, list[Dead]]:
    """How many rows are new, on their ids, and what the database would not take."""
    if not candidates:
        return 0, []
    statement = columns.insert(connection, table).on_conflict_do_nothing(index_elements=["id"])
    try:
        with connection.begin_nested():
            return connection.execute(statement, [row for row, _ in candidates]).rowcount, []
    except Exception as error:
        if is_unavailable(error):
            raise
        # One of them is bad: find it by trying each alone.
    inserted, unstorable = 0, []
    for row, item in candidates:
        try:
            with connection.begin_nested():
                inserted += connection.execute(statement, row).rowcount
        except Exception as error:
            if is_unavailable(error):
                raise
            reason = error.orig if isinstance(error, exc.StatementError) else error
            unstorable.append((encode(item), f"the database refuses this: {reason}"))
    return inserted, unstorable


def _end(connection: Connection, item: SessionEndedItem, now_ms: int) -> int:
    """1 where this is the session's first end, 0 otherwise."""
    try:
        ended_at_ms = min(columns.to_ms(item.ended_at), now_ms + CLOCK_AHEAD_MS)
    except ValueError:
        ended_at_ms = now_ms
    values: Row = {"ended_at_ms": ended_at_ms, "end_reason": item.end_reason, "updated_at_ms": now_ms}
    if item.failed:
        values["failed"] = True
    return connection.execute(
        update(sessions)
        .where(sessions.c.id == item.session_id, sessions.c.ended_at_ms.is_(None))
        .values(values)
    ).rowcount


def _bury(connection: Connection, letters: Sequence[Dead], now_ms: int) -> int:
    if not letters:
        return 0
    rows = [
        {
            "checksum_sha256": hashlib.sha256(data).hexdigest(),
            "data": data[:MAX_DEAD_LETTER_BYTES],
            "size_bytes": len(data),
            "problem": problem[:MAX_PROBLEM_CHARACTERS],
            "created_at_ms": now_ms,
        }
        for data, problem in letters
    ]
    statement = columns.insert(connection, dead_letters).on_conflict_do_nothing(
        index_elements=["checksum_sha256"]
    )
    return connection.execute(statement, rows).rowcount
