"""`voicethere serve check`: whether a configuration is right, and what it comes to, without serving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from voicethere.cli.configuration.masking import shown
from voicethere.cli.configuration.options import config_option, configuration_of
from voicethere.cli.configuration.settings import ROLES, settings_of
from voicethere.cli.configuration.sources import Configured


class Effective(msgspec.Struct, frozen=True):
    """One setting as it is in force: `value` with secrets masked, `origin` as words."""

    value: Any
    origin: str


@click.command()
@config_option
@click.option(
    "--role", "roles", type=click.Choice(ROLES), multiple=True, help="This role's; repeatable. Default: all."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout: by role, by setting.")
def check(config_file: Path | None, roles: tuple[str, ...], as_json: bool) -> None:
    """Check the configuration and print what it comes to for each role, passwords masked.

    Exit status 2 where it is wrong. Nothing is connected to: `voicethere doctor` does that.
    """
    found = {role: _effective(role, configuration_of(role, config_file, {})) for role in roles or ROLES}
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False))
        return
    for role, effective in found.items():
        click.echo(f"[{role}]")
        for key, one in effective.items():
            origin = "" if one.origin == "default" else f"  # {one.origin}"
            click.echo(f"{key} = {json.dumps(one.value, ensure_ascii=False)}{origin}")
        click.echo()
    click.echo("The configuration is right.", err=True)


def _effective(role: str, configured: Configured) -> dict[str, Effective]:
    return {
        setting.key: Effective(
            shown(setting.key, getattr(configured.values, setting.key)), str(configured.origins[setting.key])
        )
        for setting in settings_of(role)
    }
