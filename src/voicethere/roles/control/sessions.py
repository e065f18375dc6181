"""Routes: the sessions of a project."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from voicethere.adapters.http.errors import invalid, not_found
from voicethere.errors.times import iso, parse_iso
from voicethere.roles.control.access import require_session_id
from voicethere.roles.control.plane import ControlPlane
from voicethere.roles.control.session_errors import Limit
from voicethere.wire.control_plane import Project, SessionList, SessionRow


class SessionRoutes(Controller):
    path = "/projects/{project_id:str}/sessions"
    tags = ("sessions",)

    @get(summary="The project's sessions, newest first")
    async def list_sessions(
        self,
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
        start: FromQuery[str | None] = None,
        end: FromQuery[str | None] = None,
        limit: Limit = 20,
    ) -> SessionList:
        """`start` and `end` bound `created_at` (ISO-8601 with a time zone)."""
        first, last = _moment("start", start), _moment("end", end)
        if first is not None and last is not None and first > last:
            raise invalid("`start`: must not be after `end`.")
        rows = await plane.store.list_sessions(project.id, start=first, end=last, limit=limit)
        return SessionList(sessions=list(rows), start=first, end=last, count=len(rows))

    @get("/{session_id:str}", summary="Show a session")
    async def get_session(
        self,
        session_id: FromPath[str],
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
    ) -> SessionRow:
        row = await plane.store.get_session_row(project.id, require_session_id(session_id))
        if row is None:
            raise not_found("session")
        return row


def _moment(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return iso(parse_iso(value))
    except (ValueError, OverflowError) as error:
        raise invalid(
            f"`{name}`: must be ISO-8601 with a time zone, such as 2026-06-19T12:00:00.000Z."
        ) from error
