"""`voicethere projects environment …` and `voicethere projects secrets …`."""

from __future__ import annotations

import sys

import click

from voicethere.cli.api import ControlApi, path_part
from voicethere.cli.failure import Failure
from voicethere.cli.options import json_option, project_option
from voicethere.cli.terminal import json_document, note, rows
from voicethere.wire.control_plane import EnvironmentView, MaskedSecret, SecretList


@click.group()
def environment() -> None:
    """Variables (AGENT_…) that the project's agents find in their environment."""


@click.group()
def secrets() -> None:
    """Secret variables: shown masked, and redacted from every error."""


def _path(api: ControlApi, project: str | None, rest: str) -> str:
    return f"/projects/{path_part(api.project(project).id)}/{rest}"


@environment.command("list")
@project_option
@json_option
def list_environment(project: str | None, as_json: bool) -> None:
    """List the variables."""
    with ControlApi.connect() as api:
        path = _path(api, project, "environment")
        if as_json:
            json_document(api.raw(path))
            return
        found = api.get(path, EnvironmentView).environment
    rows(("variable", "value"), sorted(found.items()), nothing="No variables.")


@environment.command("set")
@click.argument("key")
@click.argument("value")
@project_option
def set_environment(key: str, value: str, project: str | None) -> None:
    """Set a variable, from the next deploy on."""
    with ControlApi.connect() as api:
        path = _path(api, project, f"environment/{path_part(key)}")
        api.send("PUT", path, EnvironmentView, json={"value": value})
    note(f"{key} is set from the next deploy on.")


@environment.command("unset")
@click.argument("key")
@project_option
def unset_environment(key: str, project: str | None) -> None:
    """Remove a variable, from the next deploy on."""
    with ControlApi.connect() as api:
        api.send("DELETE", _path(api, project, f"environment/{path_part(key)}"), type(None))
    note(f"{key} is gone from the next deploy on.")


@secrets.command("list")
@project_option
@json_option
def list_secrets(project: str | None, as_json: bool) -> None:
    """List the secrets, masked."""
    with ControlApi.connect() as api:
        path = _path(api, project, "secrets")
        if as_json:
            json_document(api.raw(path))
            return
        found = api.get(path, SecretList).secrets
    rows(("secret", "value"), [(s.name, s.masked) for s in found], nothing="No secrets.")


@secrets.command("set")
@click.argument("name")
@click.argument("value", required=False)
@project_option
def set_secret(name: str, value: str | None, project: str | None) -> None:
    """Set a secret, from the next deploy on.

    Without VALUE it is asked for, or read from standard input, so that it stays out of the shell's history.
    """
    if value is None:
        if sys.stdin.isatty():
            value = str(click.prompt(name, hide_input=True, err=True))
        else:
            value = sys.stdin.read().rstrip("\r\n")
    if not value:
        raise Failure("the secret is empty: give a value.")
    with ControlApi.connect() as api:
        path = _path(api, project, "secrets")
        api.send("POST", path, MaskedSecret, json={"name": name, "value": value})
    note(f"{name} is set from the next deploy on.")


@secrets.command("unset")
@click.argument("name")
@project_option
def unset_secret(name: str, project: str | None) -> None:
    """Remove a secret, from the next deploy on."""
    with ControlApi.connect() as api:
        api.send("DELETE", _path(api, project, f"secrets/{path_part(name)}"), type(None))
    note(f"{name} is gone from the next deploy on.")
