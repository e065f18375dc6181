"""Pages of stored errors: functions on a connection. How errors are stored is in `batch`."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, Row, Select, select, tuple_

from voicethere.adapters.store import columns, cursors
from voicethere.adapters.store.records import ErrorPage, Suppression
from voicethere.adapters.store.tables import error_suppressions, session_errors
from voicethere.wire.control_plane import SessionErrorRow

MAX_PAGE = 100

_PROJECT = "project"
_SESSION = "session"
_position = tuple_(session_errors.c.occurred_at_ms, session_errors.c.id)


def project_errors(connection: Connection, project_id: str, *, limit: int, cursor: str | None) -> ErrorPage:
    """Newest first.

    Raises:
        ValueError: `limit` is not between 1 and `MAX_PAGE`, or the cursor is none of this list.
    """
    query = (
        select(session_errors)
        .where(session_errors.c.project_id == project_id)
        .order_by(session_errors.c.occurred_at_ms.desc(), session_errors.c.id.desc())
    )
    if cursor is not None:
        query = query.where(_position < tuple_(*cursors.read(_PROJECT, cursor)))
    return _page(connection, query, _PROJECT, limit)


def errors_of_session(
    connection: Connection, project_id: str, session_id: str, *, limit: int, cursor: str | None
) -> ErrorPage:
    """Oldest first; raises as `project_errors`."""
    query = (
        select(session_errors)
        .where(session_errors.c.project_id == project_id, session_errors.c.session_id == session_id)
        .order_by(session_errors.c.occurred_at_ms, session_errors.c.id)
    )
    if cursor is not None:
        query = query.where(_position > tuple_(*cursors.read(_SESSION, cursor)))
    return _page(connection, query, _SESSION, limit)


def suppressed_errors(connection: Connection, project_id: str, *, limit: int) -> list[Suppression]:
    """What was counted and not stored, newest first."""
    query = (
        select(error_suppressions)
        .where(error_suppressions.c.project_id == project_id)
        .order_by(error_suppressions.c.last_at_ms.desc(), error_suppressions.c.id.desc())
        .limit(limit)
    )
    return [
        Suppression(
            code=row.code,
            count=row._mapping["count"],  # `row.count` is a method of every row
            first_at=columns.to_wire(row.first_at_ms),
            last_at=columns.to_wire(row.last_at_ms),
        )
        for row in connection.execute(query)
    ]


def _page(connection: Connection, query: Select[tuple[object, ...]], order: str, limit: int) -> ErrorPage:
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit must be from 1 to {MAX_PAGE}, not {limit}")
    # One row more than asked for tells whether there is a next page.
    rows = connection.execute(query.limit(limit + 1)).all()
    cursor = None
    if len(rows) > limit:
        rows = rows[:limit]
        cursor = cursors.make(order, rows[-1].occurred_at_ms, rows[-1].id)
    return ErrorPage(errors=[_error(row) for row in rows], next_cursor=cursor)


def _error(row: Row[tuple[object, ...]]) -> SessionErrorRow:
    return SessionErrorRow(
        id=row.id,
        orchestrator_session_id=row.session_id,
        source=row.source,
        code=row.code,
        message=row.message,
        stack_trace=row.stack_trace,
        created_at=columns.to_wire(row.created_at_ms),
        client_message=row.client_message,
        build_id=row.build_id,
        recoverable=row.recoverable,
        customer_context=columns.object_or_none(row.customer_context),
        occurred_at=columns.to_wire(row.occurred_at_ms),
        details=msgspec.json.decode(row.details, type=dict[str, object]),
    )
