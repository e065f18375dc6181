"""Rows that several tests of the store make."""

from __future__ import annotations

from voicethere.adapters.store import SessionRecord, Store
from voicethere.errors.codes import SessionErrorCode
from voicethere.wire.control_plane import Build, Project, ValidationStatus
from voicethere.wire.queue import SessionEndedItem, SuppressedItem

HASH = "ab" * 32


async def make_build(store: Store, project: Project) -> Build:
    return await store.create_build(
        project_id=project.id,
        size_bytes=3,
        checksum_sha256=HASH,
        message="first",
        validation_status=ValidationStatus.VALID,
        validation_error=None,
    )


def ended(
    session_id: str, project_id: str, *, failed: bool = False, reason: str = "client"
) -> SessionEndedItem:
    return SessionEndedItem(
        session_id=session_id,
        project_id=project_id,
        end_reason=reason,
        failed=failed,
        ended_at="2026-06-19T12:00:00.000Z",
    )


async def make_sessions(store: Store, project: Project, *names: str) -> list[SessionRecord]:
    return [
        await store.create_session(
            session_id=name, project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
        )
        for name in names
    ]


def suppressed(project_id: str, name: str, *, count: int = 7, at: str) -> SuppressedItem:
    return SuppressedItem(
        id=name,
        project_id=project_id,
        code=SessionErrorCode.AGENT_HANDLER_FAILED,
        count=count,
        first_at=at,
        last_at=at,
    )
