"""`voicethere sessions list`."""

from __future__ import annotations

import click

from voicethere.cli.api import ControlApi, path_part
from voicethere.cli.options import json_option, limit_option, project_option
from voicethere.cli.terminal import json_document, rows
from voicethere.wire.control_plane import SessionList


@click.group()
def sessions() -> None:
    """The sessions of a project."""


@sessions.command("list")
@click.option("--start", metavar="TIME", help="Created at or after (ISO-8601 with a time zone).")
@click.option("--end", metavar="TIME", help="Created before (ISO-8601 with a time zone).")
@limit_option
@project_option
@json_option
def list_sessions(start: str | None, end: str | None, limit: int, project: str | None, as_json: bool) -> None:
    """List sessions, newest first."""
    with ControlApi.connect() as api:
        path = f"/projects/{path_part(api.project(project).id)}/sessions"
        if as_json:
            json_document(api.raw(path, start=start, end=end, limit=limit))
            return
        found = api.get(path, SessionList, start=start, end=end, limit=limit).sessions
    rows(
        ("session", "status", "created", "ended", "reason"),
        [(s.id, s.status, s.created_at, s.ended_at, s.end_reason) for s in found],
        nothing="No sessions.",
    )
