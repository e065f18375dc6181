"""`voicethere projects errors list`."""

from __future__ import annotations

import click

from voicethere.cli.api import ControlApi, path_part
from voicethere.cli.options import json_option, limit_option, project_option
from voicethere.cli.terminal import json_document, note, rows
from voicethere.wire.control_plane import ProjectErrors, SessionErrors

_SESSION_CHARS = 12


@click.group()
def errors() -> None:
    """What went wrong in a project's sessions."""


@errors.command("list")
@click.option("--session", metavar="ID", help="Only this session's errors, oldest first.")
@limit_option
@project_option
@json_option
def list_errors(session: str | None, limit: int, project: str | None, as_json: bool) -> None:
    """List the last session errors, newest first.

    Piped: tab-separated time, session (its first 12 characters; not with --session), code, source, message.
    Errors that were too many at once to be stored are counted, a line for each code on standard error.
    """
    with ControlApi.connect() as api:
        base = f"/projects/{path_part(api.project(project).id)}"
        path = f"{base}/session-errors" if session is None else f"{base}/sessions/{path_part(session)}/errors"
        if as_json:
            json_document(api.raw(path, limit=limit))
            return
        if session is not None:
            found = api.get(path, SessionErrors, limit=limit).errors
            rows(
                ("time", "code", "source", "message"),
                [(e.created_at, e.code, e.source, e.message) for e in found],
                nothing="No errors in this session.",
            )
            return
        answer = api.get(path, ProjectErrors, limit=limit)
    rows(
        ("time", "session", "code", "source", "message"),
        [
            (e.created_at, e.orchestrator_session_id[:_SESSION_CHARS], e.code, e.source, e.message)
            for e in answer.errors
        ],
        nothing="No session errors.",
    )
    for more in answer.suppressed or ():
        note(f"… and {more.count:,} more {more.code} between {more.first_at} and {more.last_at}")
