"""Sessions, from the request to the end: functions on a connection.

How a session *ends* is not here: that comes through the queue (see `batch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import UNSET
from sqlalchemy import Connection, Row, func, select, text, update

from voicethere.adapters.store import columns
from voicethere.adapters.store.projects import require_project
from voicethere.adapters.store.records import SessionRecord, StoreConflict, WaitingPlace
from voicethere.adapters.store.tables import LINE, sessions
from voicethere.wire.control_plane import SessionRow
from voicethere.wire.session_api import FailureCode, Mode, ProvisioningStatus

MAX_LIST = 1000

_NUMBER_LOCK = 7_601_394_523
_SETTLED = (ProvisioningStatus.READY, ProvisioningStatus.FAILED)
_WAITS = (sessions.c.status == ProvisioningStatus.WAITING.value) & sessions.c.ended_at_ms.is_(None)


def create_session(
    connection: Connection,
    now_ms: int,
    *,
    session_id: str,
    project_id: str,
    build_id: str | None,
    customer_context: dict[str, Any] | None,
    idempotency_key: str | None,
    wait_for_capacity: bool,
    conversation_id: str | None = None,
) -> SessionRecord:
    """A queued session, or the one that the project made with this idempotency key before.

    Raises:
        LookupError: there is no such project.
        StoreConflict: the session id is taken.
    """
    _take_a_number(connection)
    require_project(connection, project_id)
    inserted = columns.count_inserted(
        connection,
        columns.insert(connection, sessions)
        .values(
            id=session_id,
            project_id=project_id,
            build_id=build_id,
            status=ProvisioningStatus.QUEUED.value,
            customer_context=None if customer_context is None else columns.to_json(customer_context),
            idempotency_key=idempotency_key,
            wait_for_capacity=wait_for_capacity,
            conversation_id=conversation_id,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        .on_conflict_do_nothing(),
    )
    same = sessions.c.id == session_id
    if inserted == 0:
        if idempotency_key is None:
            raise StoreConflict(f"the session id {session_id!r} is taken: choose another one")
        same = (sessions.c.project_id == project_id) & (sessions.c.idempotency_key == idempotency_key)
    row = connection.execute(select(sessions).where(same)).first()
    if row is None:
        raise StoreConflict(f"the session id {session_id!r} is taken: choose another one")
    return record_of(row)


def _take_a_number(connection: Connection) -> None:
    """Make sessions one after the other, on PostgreSQL too: one that appeared later with a smaller number
    would push others back in the line."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_NUMBER_LOCK})"))


def get_session(connection: Connection, session_id: str) -> SessionRecord | None:
    """The session with this id."""
    row = connection.execute(select(sessions).where(sessions.c.id == session_id)).first()
    return None if row is None else record_of(row)


def find_repeated_session(
    connection: Connection, project_id: str, idempotency_key: str
) -> SessionRecord | None:
    """The session that the project made with this idempotency key."""
    query = select(sessions).where(
        sessions.c.project_id == project_id, sessions.c.idempotency_key == idempotency_key
    )
    row = connection.execute(query).first()
    return None if row is None else record_of(row)


def unfinished_sessions(connection: Connection) -> Sequence[SessionRecord]:
    """All sessions without an end, failed jobs whose end is not stored yet included; oldest first."""
    query = select(sessions).where(sessions.c.ended_at_ms.is_(None)).order_by(sessions.c.number)
    return [record_of(row) for row in connection.execute(query)]


def update_session(
    connection: Connection,
    now_ms: int,
    session_id: str,
    *,
    status: ProvisioningStatus,
    build_id: str | None,
    runner_id: str | None,
    failure_code: FailureCode | None,
    failure_message: str | None,
    mode: Mode | None,
) -> SessionRecord | None:
    """Take a step; one that has ended, failed or is ready stays as it is. None leaves a field alone.

    One that waits again keeps the moment since which it has waited.
    """
    values: dict[str, object] = {"status": status.value, "updated_at_ms": now_ms}
    if build_id is not None:
        values["build_id"] = build_id
    if runner_id is not None:
        values["runner_id"] = runner_id
    if failure_code is not None:
        values["failure_code"] = failure_code.value
    if failure_message is not None:
        values["failure_message"] = failure_message
    if mode is not None:
        values["mode"] = mode.value
    if status is ProvisioningStatus.WAITING:
        values["waiting_since_ms"] = func.coalesce(sessions.c.waiting_since_ms, now_ms)
        values["last_seen_ms"] = func.coalesce(sessions.c.last_seen_ms, now_ms)
    if status in _SETTLED:
        values["completed_at_ms"] = now_ms
    if status is ProvisioningStatus.FAILED:
        values["failed"] = True
    connection.execute(
        update(sessions)
        .where(
            sessions.c.id == session_id,
            sessions.c.ended_at_ms.is_(None),
            sessions.c.status.not_in([settled.value for settled in _SETTLED]),
        )
        .values(values)
    )
    return get_session(connection, session_id)


def session_joined(connection: Connection, now_ms: int, session_id: str) -> None:
    """Its client has come to its room; the first time is kept."""
    connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id, sessions.c.joined_at_ms.is_(None))
        .values(joined_at_ms=now_ms)
    )


def session_seen(connection: Connection, now_ms: int, session_id: str) -> None:
    """Its client has asked for it; kept of one that has no runner yet."""
    connection.execute(update(sessions).where(sessions.c.id == session_id, LINE).values(last_seen_ms=now_ms))


def waiting_place(connection: Connection, session_id: str) -> WaitingPlace | None:
    """Its place in the line; None where it does not wait."""
    row = connection.execute(
        select(sessions.c.number, sessions.c.waiting_since_ms, sessions.c.last_seen_ms).where(
            sessions.c.id == session_id, _WAITS
        )
    ).first()
    if row is None:
        return None
    # Those that are being provisioned count, too: one of them may come back to its place.
    before = connection.execute(
        select(func.count()).select_from(sessions).where(LINE, sessions.c.number < row.number)
    ).scalar_one()
    return WaitingPlace(
        position=before + 1,
        waiting_since=columns.to_wire(row.waiting_since_ms),
        last_seen=columns.to_wire(row.last_seen_ms),
    )


def expired_waiters(connection: Connection, before_ms: int) -> list[str]:
    """Those in the line that wait and were last seen before this moment, oldest first."""
    query = (
        select(sessions.c.id)
        .where(LINE, _WAITS, sessions.c.last_seen_ms < before_ms)
        .order_by(sessions.c.number)
    )
    return list(connection.execute(query).scalars())


def queued_sessions(connection: Connection) -> Sequence[SessionRecord]:
    """Those for which nothing was done yet, oldest first."""
    query = (
        select(sessions)
        .where(LINE, sessions.c.status == ProvisioningStatus.QUEUED.value)
        .order_by(sessions.c.number)
    )
    return [record_of(row) for row in connection.execute(query)]


def list_sessions(
    connection: Connection, project_id: str, *, start_ms: int | None, end_ms: int | None, limit: int
) -> Sequence[SessionRow]:
    """Newest first: those made at or after `start_ms` and before `end_ms`.

    Raises:
        ValueError: `limit` is not between 1 and `MAX_LIST`.
    """
    if not 1 <= limit <= MAX_LIST:
        raise ValueError(f"limit must be from 1 to {MAX_LIST}, not {limit}")
    query = select(sessions).where(sessions.c.project_id == project_id)
    if start_ms is not None:
        query = query.where(sessions.c.created_at_ms >= start_ms)
    if end_ms is not None:
        query = query.where(sessions.c.created_at_ms < end_ms)
    query = query.order_by(sessions.c.created_at_ms.desc(), sessions.c.number.desc()).limit(limit)
    return [_row(row) for row in connection.execute(query)]


def count_sessions(connection: Connection, project_id: str, *, since_ms: int) -> int:
    """How many sessions of the project were made at or after `since_ms`."""
    query = select(func.count()).where(
        sessions.c.project_id == project_id, sessions.c.created_at_ms >= since_ms
    )
    return connection.execute(query).scalar_one()


def open_sessions_by_status(connection: Connection) -> dict[str, int]:
    """How many sessions that have not ended there are, by status."""
    query = (
        select(sessions.c.status, func.count())
        .where(sessions.c.ended_at_ms.is_(None))
        .group_by(sessions.c.status)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def get_session_row(connection: Connection, project_id: str, session_id: str) -> SessionRow | None:
    """The session as the control plane shows it, where it is the project's."""
    query = select(sessions).where(sessions.c.id == session_id, sessions.c.project_id == project_id)
    row = connection.execute(query).first()
    return None if row is None else _row(row)


def record_of(row: Row[tuple[object, ...]]) -> SessionRecord:
    """A row of all columns of `sessions`."""
    return SessionRecord(
        id=row.id,
        number=row.number,
        project_id=row.project_id,
        build_id=row.build_id,
        status=ProvisioningStatus(row.status),
        failure_code=None if row.failure_code is None else FailureCode(row.failure_code),
        failure_message=row.failure_message,
        runner_id=row.runner_id,
        customer_context=columns.object_or_none(row.customer_context),
        created_at=columns.to_wire(row.created_at_ms),
        updated_at=columns.to_wire(row.updated_at_ms),
        completed_at=columns.to_wire_or_none(row.completed_at_ms),
        ended_at=columns.to_wire_or_none(row.ended_at_ms),
        end_reason=row.end_reason,
        failed=row.failed,
        mode=None if row.mode is None else Mode(row.mode),
        wait_for_capacity=row.wait_for_capacity,
        waiting_since=columns.to_wire_or_none(row.waiting_since_ms),
        last_seen=columns.to_wire_or_none(row.last_seen_ms),
        joined_at=columns.to_wire_or_none(row.joined_at_ms),
        conversation_id=row.conversation_id,
    )


def _row(row: Row[tuple[object, ...]]) -> SessionRow:
    status: Literal["active", "ended", "failed"] = "active"
    ended_at_ms = row.ended_at_ms
    if row.failed:
        status = "failed"
        # A job that failed has no end of its own: it was over when it failed.
        ended_at_ms = row.completed_at_ms if ended_at_ms is None else ended_at_ms
    elif ended_at_ms is not None:
        status = "ended"
    return SessionRow(
        id=row.id,
        orchestrator_session_id=row.id,
        status=status,
        build_id=row.build_id,
        created_at=columns.to_wire(row.created_at_ms),
        ended_at=columns.to_wire_or_none(ended_at_ms),
        end_reason=row.end_reason,
        conversation_id=UNSET if row.conversation_id is None else row.conversation_id,
    )
