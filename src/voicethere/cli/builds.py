"""`voicethere build …`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from voicethere.cli.api import ControlApi, path_part
from voicethere.cli.config import bundle_of, project_config
from voicethere.cli.failure import Failure
from voicethere.cli.options import json_option, project_option, read_bundle_file
from voicethere.cli.terminal import json_document, line, note, rows, safe_lines
from voicethere.wire.control_plane import ActiveBuild, Build, BuildList, ValidationStatus

_file = click.Path(path_type=Path, dir_okay=False)


@click.group()
def build() -> None:
    """Bundles of a project: upload them, choose the active one."""


@build.command("list")
@project_option
@json_option
def list_builds(project: str | None, as_json: bool) -> None:
    """List the builds, newest first."""
    with ControlApi.connect() as api:
        found = api.project(project)
        path = f"/projects/{path_part(found.id)}/builds"
        if as_json:
            json_document(api.raw(path))
            return
        builds = api.get(path, BuildList).builds
    rows(
        ("build", "created", "status", "bytes", "active", "message"),
        [
            (
                b.id,
                b.created_at,
                b.validation_status.value,
                str(b.size_bytes),
                _marks(b.id, found.active_build_id, found.deployed_build_id),
                b.message,
            )
            for b in builds
        ],
        nothing="No builds yet: `voicethere build upload FILE`.",
    )


@build.command("validate")
@click.argument("file", type=_file)
@json_option
def validate_build(file: Path, as_json: bool) -> None:
    """Load a bundle in the real sandbox on this machine, without uploading it."""
    from voicethere.cli.bundle_check import check_bundle

    check_bundle(file, as_json=as_json)


@build.command("upload")
@click.argument("file", type=_file, required=False)
@click.option("-m", "--message", help="What is new in it.")
@click.option("--promote", "promote_it", is_flag=True, help="Make it the active build.")
@project_option
@json_option
def upload_build(
    file: Path | None, message: str | None, promote_it: bool, project: str | None, as_json: bool
) -> None:
    """Upload a bundle (.py, or .zip with agent.py); the server loads it in its sandbox."""
    path = file or _configured_bundle()
    content = read_bundle_file(path)
    with ControlApi.connect() as api:
        found = api.project(project)
        note(f"Uploading {path.name} ({len(content)} bytes) to '{found.name}' …")
        uploaded = api.send(
            "POST",
            f"/projects/{path_part(found.id)}/builds",
            Build,
            files={"bundle": (path.name, content, "application/octet-stream")},
            data={} if message is None else {"message": message},
        )
        valid = uploaded.validation_status is ValidationStatus.VALID
        if valid and promote_it:
            _promote(api, found.id, uploaded.id, "promote")
    if as_json:
        json_document(msgspec.to_builtins(uploaded))
    else:
        line(uploaded.id)
    if not valid:
        problem, _, stack = (uploaded.validation_error or "it does not load").partition("\n")
        if stack:
            click.echo(safe_lines(stack), err=True)
        raise Failure(f"build {uploaded.id} is {uploaded.validation_status.value}: {problem}")
    note(
        "It is valid." + (" It is the active build now." if promote_it else " Promote it to make it active.")
    )


@build.command("promote")
@click.argument("build_id", required=False)
@project_option
def promote_build(build_id: str | None, project: str | None) -> None:
    """Make a build the active one; the newest valid one by default."""
    with ControlApi.connect() as api:
        line(_promote(api, api.project(project).id, build_id, "promote"))
    note("It is the active build now; `voicethere deploy` puts it into service.")


@build.command("rollback")
@click.argument("build_id", required=False)
@project_option
def rollback_build(build_id: str | None, project: str | None) -> None:
    """Make an earlier build the active one; the one before the active one by default."""
    with ControlApi.connect() as api:
        line(_promote(api, api.project(project).id, build_id, "rollback"))
    note("It is the active build now; `voicethere deploy` puts it into service.")


def _promote(api: ControlApi, project_id: str, build_id: str | None, action: str) -> str:
    body = {} if build_id is None else {"build_id": build_id}
    path = f"/projects/{path_part(project_id)}/{action}"
    return api.send("POST", path, ActiveBuild, json=body).active_build_id


def _configured_bundle() -> Path:
    config = project_config()
    path = None if config is None else bundle_of(config)
    if path is None:
        raise click.UsageError("Missing argument 'FILE' (and the project file names no bundle).")
    return path


def _marks(build_id: str, active: str | None, deployed: str | None) -> str:
    marks = [word for word, which in (("active", active), ("deployed", deployed)) if which == build_id]
    return ", ".join(marks)
