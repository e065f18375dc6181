"""Routes: what went wrong in sessions. Reading for operators, reporting for the platform's services."""

from __future__ import annotations

from typing import Annotated

import structlog
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import UNSET

from voicethere.adapters.http.errors import error_responses, invalid, not_found
from voicethere.adapters.store.store import StoreUnavailable
from voicethere.errors.records import ErrorRecord
from voicethere.errors.times import parse_iso
from voicethere.roles.control.access import FOR_SERVICES, require_id, require_session_id
from voicethere.roles.control.plane import ControlPlane
from voicethere.roles.control.queueing import put_on_queue
from voicethere.roles.control.suppressions import by_code
from voicethere.wire.control_plane import ErrorAccepted, Project, ProjectErrors, SessionErrors
from voicethere.wire.queue import ErrorItem

_log = structlog.get_logger("voicethere.control")

Limit = Annotated[int, QueryParameter(ge=1, le=100)]
_MAX_RECORD_BYTES = 256 * 1024
_MAX_ID_CHARS = 128


class SessionErrorRoutes(Controller):
    path = "/projects/{project_id:str}"
    tags = ("session errors",)

    @get("/session-errors", summary="The project's last session errors, newest first")
    async def project_errors(
        self,
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
        limit: Limit = 20,
        cursor: FromQuery[str | None] = None,
    ) -> ProjectErrors:
        """`next_cursor` of an answer is the `cursor` for the older ones. `suppressed`, on the first page,
        counts the errors that were too many at once to be stored."""
        try:
            page = await plane.store.project_errors(project.id, limit=limit, cursor=cursor)
        except ValueError as error:
            raise _bad_cursor() from error
        suppressed = [] if cursor else by_code(await plane.store.suppressed_errors(project.id))
        return ProjectErrors(
            project_id=project.id,
            errors=list(page.errors),
            next_cursor=page.next_cursor or UNSET,
            suppressed=suppressed or UNSET,
        )

    @get("/sessions/{session_id:str}/errors", summary="One session's errors, oldest first")
    async def session_errors(
        self,
        session_id: FromPath[str],
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
        limit: Limit = 20,
        cursor: FromQuery[str | None] = None,
    ) -> SessionErrors:
        """`next_cursor` of an answer is the `cursor` for the later ones."""
        require_session_id(session_id)
        if await plane.store.get_session_row(project.id, session_id) is None:
            raise not_found("session")
        try:
            page = await plane.store.session_errors(project.id, session_id, limit=limit, cursor=cursor)
        except ValueError as error:
            raise _bad_cursor() from error
        return SessionErrors(
            project_id=project.id,
            orchestrator_session_id=session_id,
            errors=list(page.errors),
            next_cursor=page.next_cursor or UNSET,
        )

    @post(
        "/session-errors",
        summary="Report an error (the platform's services only)",
        status_code=202,
        opt=FOR_SERVICES,
        request_max_body_size=_MAX_RECORD_BYTES,
        responses=error_responses(413),
    )
    async def report_error(
        self, project_id: FromPath[str], data: JSONBody[ErrorRecord], plane: NamedDependency[ControlPlane]
    ) -> ErrorAccepted:
        """The record goes onto the queue and is durable when this answers. It is redacted already; sent
        twice with the same `id`, it is stored once. A 503 means that nothing was accepted: send it again."""
        require_id(project_id, "project")
        if data.project_id != project_id:
            raise invalid("`project_id`: is not the project of this path.")
        if not 1 <= len(data.id) <= _MAX_ID_CHARS:
            raise invalid(f"`id`: must have 1 to {_MAX_ID_CHARS} characters.")
        try:
            parse_iso(data.occurred_at)
        except ValueError as error:
            raise invalid("`occurred_at`: must be ISO-8601 with a time zone.") from error
        await _require_session_of(plane, require_session_id(data.session_id), project_id)
        await put_on_queue(plane, ErrorItem(record=data), "Keep the error with its `id`, and send it again")
        return ErrorAccepted(id=data.id)


async def _require_session_of(plane: ControlPlane, session_id: str, project_id: str) -> None:
    try:
        session = await plane.store.get_session(session_id)
    except StoreUnavailable as error:
        # The queue is there for this: the worker looks again, and buries what belongs to no session.
        _log.warning("session_not_checked", session_id=session_id, problem=str(error))
        return
    if session is None or session.project_id != project_id:
        raise not_found("session")


def _bad_cursor() -> Exception:
    return invalid("`cursor`: is not one that an earlier page gave as `next_cursor`.")
