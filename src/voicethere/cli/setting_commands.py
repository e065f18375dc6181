"""`voicethere projects session-settings …` and `voicethere projects settings …`.

Which settings there are, and of what type, is the server's to say: a value is read as the type that the
setting has now.
"""

from __future__ import annotations

import json
from typing import Any

import click

from voicethere.cli.api import ControlApi, path_part
from voicethere.cli.failure import Failure
from voicethere.cli.options import json_option, project_option
from voicethere.cli.terminal import json_document, note, rows
from voicethere.wire.control_plane import SettingsView

AT_ONCE = (
    "retention_days",
    "retention_errors",
    "monthly_session_limit",
    "allowed_origins",
    "require_issued_conversations",
)
"""Settings of how a project is kept and who may use it; the others are frozen by each deploy."""
TRUE_WORDS = ("true", "1", "yes")
FALSE_WORDS = ("false", "0", "no")


@click.group("session-settings")
def session_settings() -> None:
    """How sessions behave: idle limits, the crash message, …"""


@click.group()
def settings() -> None:
    """How the project is run: its mode, what follows when its agent crashes (agent_crash_policy), how long
    its errors are kept (retention_days, retention_errors), which pages may use it (allowed_origins), …"""


def parse_value(key: str, text: str, present: Any) -> Any:
    """`text` as the type of `present`, the setting's value now.

    Raises:
        click.UsageError: it does not read as that type.
    """
    if isinstance(present, bool):
        word = text.strip().lower()
        if word in TRUE_WORDS + FALSE_WORDS:
            return word in TRUE_WORDS
        raise click.UsageError(f"{key} is true or false (true|false|1|0|yes|no), not '{text}'.")
    if isinstance(present, int):
        try:
            return int(text)
        except ValueError as error:
            raise click.UsageError(f"{key} is a whole number, not '{text}'.") from error
    if isinstance(present, list):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def shown_value(value: Any) -> str:
    """As it is typed in `set`: true and false in lower case, strings without quotes, lists with commas."""
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value)


def _list(resource: str, project: str | None, as_json: bool) -> None:
    with ControlApi.connect() as api:
        path = f"/projects/{path_part(api.project(project).id)}/{resource}"
        if as_json:
            json_document(api.raw(path))
            return
        found = api.get(path, SettingsView).settings
    rows(
        ("setting", "value"),
        [(key, shown_value(value)) for key, value in found.items()],
        nothing="No settings.",
    )


def _set(resource: str, key: str, text: str, project: str | None) -> None:
    with ControlApi.connect() as api:
        path = f"/projects/{path_part(api.project(project).id)}/{resource}"
        present = api.get(path, SettingsView).settings
        if key not in present:
            raise Failure(f"there is no setting '{key}'; there are: {', '.join(present)}.")
        value = parse_value(key, text, present[key])
        after = api.send("PATCH", path, SettingsView, json={"key": key, "value": value})
    shown = shown_value(after.settings.get(key)) or "empty"
    note(f"{key} is {shown} {'now' if key in AT_ONCE else 'from the next deploy on'}.")


@session_settings.command("list")
@project_option
@json_option
def list_session_settings(project: str | None, as_json: bool) -> None:
    """List the session settings."""
    _list("session-settings", project, as_json)


@session_settings.command("set")
@click.argument("key")
@click.argument("value")
@project_option
def set_session_setting(key: str, value: str, project: str | None) -> None:
    """Change one, from the next deploy on. Booleans: true|false|1|0|yes|no."""
    _set("session-settings", key, value, project)


@settings.command("list")
@project_option
@json_option
def list_settings(project: str | None, as_json: bool) -> None:
    """List the project settings."""
    _list("settings", project, as_json)


@settings.command("set")
@click.argument("key")
@click.argument("value")
@project_option
def set_setting(key: str, value: str, project: str | None) -> None:
    """Change one. Booleans: true|false|1|0|yes|no. Lists: values with commas between them, '' for none.

    What sessions run with changes with the next deploy; retention_days, retention_errors,
    monthly_session_limit, allowed_origins and require_issued_conversations change at once.
    """
    _set("settings", key, value, project)
