"""`voicethere api-keys …`."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from voicethere.cli.api import ControlApi, path_part
from voicethere.cli.options import json_option
from voicethere.cli.terminal import json_document, line, note, rows
from voicethere.wire.control_plane import ApiKey, ApiKeyList


@click.group("api-keys")
def api_keys() -> None:
    """Keys: for administration, and for clients."""


@api_keys.command("create")
@click.argument("name")
@click.option("--kind", type=click.Choice(["admin", "client"]), default="admin", show_default=True)
@click.option(
    "--project", metavar="PROJECT", help="Bind it to one project (a client key: default the active one)."
)
@click.option("--expires-in-days", type=click.IntRange(1, 3650), help="Default: never.")
@json_option
def create_key(name: str, kind: str, project: str | None, expires_in_days: int | None, as_json: bool) -> None:
    """Create a key. It is shown once, on stdout, and stored nowhere."""
    with ControlApi.connect() as api:
        body: dict[str, Any] = {"name": name, "kind": kind}
        if project is not None or kind == "client":
            body["project_id"] = api.project(project).id
        if expires_in_days is not None:
            body["expires_in_days"] = expires_in_days
        created = api.send("POST", "/api-keys", ApiKey, json=body)
    if as_json:
        json_document(msgspec.to_builtins(created))
        return
    note(f"Created '{created.name}' ({created.id}). This is the only time that the key is shown:")
    line(created.key if isinstance(created.key, str) else "")


@api_keys.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys (not the keys themselves)."""
    with ControlApi.connect() as api:
        if as_json:
            json_document(api.raw("/api-keys"))
            return
        found = api.get("/api-keys", ApiKeyList).api_keys
    rows(
        ("id", "name", "kind", "begins with", "project", "expires", "revoked"),
        [(k.id, k.name, k.kind.value, k.prefix, k.project_id, k.expires_at, k.revoked_at) for k in found],
        nothing="No keys.",
    )


@api_keys.command("revoke")
@click.argument("key_id")
def revoke_key(key_id: str) -> None:
    """Make a key useless, at once and for good. KEY_ID is its id in `api-keys list`."""
    with ControlApi.connect() as api:
        api.send("DELETE", f"/api-keys/{path_part(key_id)}", type(None))
    note(f"Key {key_id} is revoked.")
