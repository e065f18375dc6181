"""What comes off the queue becomes rows, in one transaction: errors, ends of sessions, dead letters.

The rules: an error is stored at most once, on its id; so is a count of suppressed errors. The first end of a
session wins. What cannot be stored as what it is (unreadable, of a session that is not there) is buried as a
dead letter that says why, and never takes its neighbours with it. A batch that comes again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from typing import Any

from sqlalchemy import Connection, Table, any_, bindparam, exc, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from voicethere.adapters.store import columns
from voicethere.adapters.store.availability import is_unavailable
from voicethere.adapters.store.bulk_insert import Values, insert_new
from voicethere.adapters.store.error_rows import CLOCK_AHEAD_MS, error_row, suppression_row
from voicethere.adapters.store.records import CommittedBatch
from voicethere.adapters.store.tables import (
    dead_letters,
    error_suppressions,
    projects,
    session_errors,
    sessions,
)
from voicethere.wire.queue import ErrorItem, QueueItem, SessionEndedItem, SuppressedItem, encode

MAX_DEAD_LETTER_BYTES = 64 * 1024
MAX_PROBLEM_CHARACTERS = 1000
MAX_COUNT = 2**53

_LOOKUP = 500

Dead = tuple[bytes, str]
Candidate = tuple[Values, QueueItem]

# Made once: making it anew for every batch takes as long as running it.
_OWNERS = {
    dialect: (
        select(sessions.c.id, sessions.c.project_id)
        .join(projects, projects.c.id == sessions.c.project_id)
        .where(among_wanted)
        .order_by(projects.c.id)
        .with_for_update(read=True, key_share=True, of=projects)
    )
    for dialect, among_wanted in {
        "sqlite": sessions.c.id.in_(bindparam("wanted", expanding=True)),
        "postgresql": sessions.c.id == any_(bindparam("wanted", type_=ARRAY(columns.Text()))),
    }.items()
}


class _Unstorable(Exception):
    """This item cannot become a row; the words say why."""


def commit_batch(
    connection: Connection, now_ms: int, items: Sequence[QueueItem], dead: Sequence[Dead]
) -> CommittedBatch:
    """Store all that can be stored and bury the rest; the caller commits."""
    owners = _owners(connection, items)
    counted = _counted_projects(connection, items)
    buried = list(dead)
    errors: list[Candidate] = []
    suppressions: list[Candidate] = []
    ends: list[SessionEndedItem] = []
    for item in items:
        try:
            if isinstance(item, ErrorItem):
                record = item.record
                _check_session(owners, record.session_id, record.project_id)
                errors.append((error_row(record, now_ms), item))
            elif isinstance(item, SuppressedItem):
                _check_suppression(counted, item)
                suppressions.append((suppression_row(item, now_ms), item))
            else:
                _check_session(owners, item.session_id, item.project_id)
                ends.append(item)
        except _Unstorable as problem:
            buried.append((encode(item), str(problem)))
        except TypeError as problem:
            buried.append((encode(item), f"the database refuses this: {problem}"))
    inserted, refused = _insert(connection, session_errors, errors)
    suppressed, refused_counts = _insert(connection, error_suppressions, suppressions)
    # In one order for all: two transactions that end the same sessions never wait for each other in a circle.
    ended = sum(_end(connection, item, now_ms) for item in sorted(ends, key=lambda end: end.session_id))
    return CommittedBatch(
        inserted=inserted,
        duplicates=len(errors) - inserted - len(refused),
        dead=_bury(connection, [*buried, *refused, *refused_counts], now_ms),
        ended=ended,
        suppressed=suppressed,
    )


def _owners(connection: Connection, items: Sequence[QueueItem]) -> dict[str, str]:
    """The project of each session that is there, and whose project nobody can delete before this commits."""
    wanted = sorted({session_id for item in items if (session_id := _session_id(item)) is not None})
    found: dict[str, str] = {}
    for start in range(0, len(wanted), _LOOKUP):
        some = connection.execute(
            _OWNERS[connection.dialect.name], {"wanted": wanted[start : start + _LOOKUP]}
        )
        found.update((session_id, project_id) for session_id, project_id in some)
    return found


def _session_id(item: QueueItem) -> str | None:
    if isinstance(item, ErrorItem):
        return item.record.session_id
    return None if isinstance(item, SuppressedItem) else item.session_id


def _counted_projects(connection: Connection, items: Sequence[QueueItem]) -> set[str]:
    """Those projects of the counts that are there, and that nobody can delete before this commits."""
    wanted = sorted({item.project_id for item in items if isinstance(item, SuppressedItem)})
    found: set[str] = set()
    for start in range(0, len(wanted), _LOOKUP):
        query = (
            select(projects.c.id)
            .where(columns.among(connection, projects.c.id, wanted[start : start + _LOOKUP]))
            .order_by(projects.c.id)
            .with_for_update(read=True, key_share=True)
        )
        found.update(connection.execute(query).scalars())
    return found


def _check_session(owners: Mapping[str, str], session_id: str, project_id: str) -> None:
    owner = owners.get(session_id)
    if owner is None:
        raise _Unstorable(f"there is no session {session_id[:64]!r} (it, or its project, may be deleted)")
    if owner != project_id:
        raise _Unstorable(f"the session {session_id[:64]!r} is not of the project {project_id[:64]!r}")


def _check_suppression(counted: Set[str], item: SuppressedItem) -> None:
    if item.project_id not in counted:
        raise _Unstorable(f"there is no project {item.project_id[:64]!r} (it may be deleted)")
    if not 1 <= item.count <= MAX_COUNT:
        raise _Unstorable(f"a count of suppressed errors is from 1 to {MAX_COUNT}")


def _insert(connection: Connection, table: Table, candidates: Sequence[Candidate]) -> tuple[int, list[Dead]]:
    """How many rows are new, on their ids, and what the database would not take."""
    if not candidates:
        return 0, []
    try:
        return insert_new(connection, table, [row for row, _ in candidates]), []
    except Exception as error:
        if is_unavailable(error):
            raise
        # Another transaction stores some of them right now, or one of them is bad: each alone, then.
    statement = columns.insert(connection, table).on_conflict_do_nothing(index_elements=["id"])
    names = [column.name for column in table.columns]
    inserted, refused = 0, []
    for row, item in sorted(candidates, key=lambda candidate: str(candidate[0][0])):
        try:
            with connection.begin_nested():
                values = dict(zip(names, row, strict=True))
                inserted += columns.count_inserted(connection, statement, values)
        except Exception as error:
            if is_unavailable(error):
                raise
            reason = error.orig if isinstance(error, exc.StatementError) else error
            refused.append((encode(item), f"the database refuses this: {reason}"))
    return inserted, refused


def _end(connection: Connection, item: SessionEndedItem, now_ms: int) -> int:
    """1 where this is the session's first end, 0 otherwise."""
    try:
        ended_at_ms = min(columns.to_ms(item.ended_at), now_ms + CLOCK_AHEAD_MS)
    except ValueError:
        ended_at_ms = now_ms
    values: dict[str, Any] = {
        "ended_at_ms": ended_at_ms,
        "end_reason": item.end_reason,
        "updated_at_ms": now_ms,
    }
    if item.failed:
        values["failed"] = True
    return connection.execute(
        update(sessions)
        .where(sessions.c.id == item.session_id, sessions.c.ended_at_ms.is_(None))
        .values(values)
    ).rowcount


def _bury(connection: Connection, letters: Sequence[Dead], now_ms: int) -> int:
    """How many of them are new."""
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
    return columns.count_inserted(connection, statement, rows)
