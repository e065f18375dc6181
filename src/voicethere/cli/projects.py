"""`voicethere projects …`: the projects themselves; groups below them live in modules of their own."""

from __future__ import annotations

import sys

import click
import msgspec

from voicethere.cli.api import ControlApi, path_part
from voicethere.cli.config import (
    ProjectConfig,
    forget_project,
    project_config,
    write_project_config,
)
from voicethere.cli.environment import environment, secrets
from voicethere.cli.failure import Failure
from voicethere.cli.options import json_option
from voicethere.cli.project_errors import errors
from voicethere.cli.setting_commands import session_settings, settings
from voicethere.cli.terminal import json_document, line, note, record, rows
from voicethere.wire.control_plane import Project, ProjectList


@click.group()
def projects() -> None:
    """Projects, their settings, and what went wrong in their sessions."""


projects.add_command(errors)
projects.add_command(session_settings)
projects.add_command(settings)
projects.add_command(environment)
projects.add_command(secrets)


@projects.command("list")
@json_option
def list_projects(as_json: bool) -> None:
    """List the projects that your key may see."""
    with ControlApi.connect() as api:
        if as_json:
            json_document(api.raw("/projects"))
            return
        found = api.get("/projects", ProjectList).projects
    active = _active_id()
    rows(
        ("slug", "name", "id", "deployed", "active here"),
        [
            (p.slug, p.name, p.id, "yes" if p.is_deployed else "no", "*" if p.id == active else "")
            for p in found
        ],
        nothing="No projects yet: `voicethere projects create NAME`.",
    )


@projects.command("create")
@click.argument("name")
@click.option("--slug", help="Lower-case letters, digits and dashes; default: made from the name.")
@click.option("--use", is_flag=True, help="Make it the active project of this folder.")
@json_option
def create_project(name: str, slug: str | None, use: bool, as_json: bool) -> None:
    """Create a project."""
    body = {"name": name} if slug is None else {"name": name, "slug": slug}
    with ControlApi.connect() as api:
        project = api.send("POST", "/projects", Project, json=body)
    if use:
        _make_active(project, None)
    if as_json:
        json_document(msgspec.to_builtins(project))
        return
    note(f"Created '{project.name}' ({project.slug}).")
    line(project.id)


@projects.command("use")
@click.argument("project")
@click.option("--bundle", help="The file that `build upload` takes by default, relative to this folder.")
def use_project(project: str, bundle: str | None) -> None:
    """Make a project (slug, name or id) the active one of this folder."""
    with ControlApi.connect() as api:
        found = api.find_project(project)
    _make_active(found, bundle)


@projects.command("show")
@click.argument("project", required=False)
@json_option
def show_project(project: str | None, as_json: bool) -> None:
    """Show a project; the active one by default."""
    with ControlApi.connect() as api:
        found = api.project(project)
        if as_json:
            json_document(api.raw(f"/projects/{path_part(found.id)}"))
            return
    record(
        (
            ("id", found.id),
            ("name", found.name),
            ("slug", found.slug),
            ("active build", found.active_build_id),
            ("deployed build", found.deployed_build_id),
            ("deployed at", found.deployed_at),
            ("created at", found.created_at),
        )
    )


@projects.command("delete")
@click.argument("project")
@click.option("--force", is_flag=True, help="Even while it is deployed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete_project(project: str, force: bool, yes: bool) -> None:
    """Delete a project with everything in it: builds, sessions, errors, keys."""
    with ControlApi.connect() as api:
        found = api.find_project(project)
        if not yes:
            if not sys.stdin.isatty():
                raise Failure(f"'{found.name}' would be deleted with everything in it: pass --yes to do so.")
            if click.prompt(f"Type the project's name ({found.name}) to delete it", err=True) != found.name:
                raise Failure("that is not its name; nothing was deleted.")
        api.send(
            "DELETE",
            f"/projects/{path_part(found.id)}",
            type(None),
            params={"force": "true" if force else "false"},
            json={"confirm_name": found.name},
        )
    forget_project(found.id)
    note(f"Deleted '{found.name}'.")


def _active_id() -> str | None:
    try:
        config = project_config()
    except Failure:
        return None
    return None if config is None else config.project_id


def _make_active(project: Project, bundle: str | None) -> None:
    path = write_project_config(
        ProjectConfig(project_id=project.id, project_slug=project.slug, name=project.name, bundle=bundle)
    )
    note(f"'{project.name}' ({project.slug}) is the active project now; kept in {path}.")
