"""The settings of a role as options of its command, and the one way from them to a configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from voicethere.cli.configuration.settings import Described, settings_of
from voicethere.cli.configuration.sources import CONFIG_VARIABLE, Configured, InvalidConfiguration, read

F = TypeVar("F", bound=Callable[..., Any])


def configured(role: str, *, flags: Mapping[str, str] | None = None) -> Callable[[F], F]:
    """Add `--config` and an option for each setting of `role`. `flags` names some of them otherwise.

    The command gets none of them as arguments that it needs: it asks `configuration_of`.
    """

    def add(command: F) -> F:
        for setting in reversed(settings_of(role)):
            command = _option(setting, (flags or {}).get(setting.key))(command)
        return config_option(command)

    return add


def config_option(command: F) -> F:
    """`--config` alone."""
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar=CONFIG_VARIABLE,
        show_envvar=True,
        help="A TOML file of settings.",
    )(command)


def configuration_of(role: str | None, config_file: Path | None, arguments: Mapping[str, Any]) -> Configured:
    """What flags, variables and file come to.

    Raises:
        click.UsageError: it is wrong; one line for each problem.
    """
    context = click.get_current_context()
    given = {
        key: value
        for key, value in arguments.items()
        if context.get_parameter_source(key) is ParameterSource.COMMANDLINE
    }
    try:
        return read(role, flags=given, environment=os.environ, file=config_file)
    except InvalidConfiguration as invalid:
        raise click.UsageError("the configuration is wrong:\n  " + "\n  ".join(invalid.problems)) from None


def _option(setting: Described, flag: str | None) -> Callable[[F], F]:
    words = setting.setting.words
    if setting.default is not None and setting.default not in ([], {}, False):
        words += f"  [default: {setting.default}]"
    names = (flag or setting.option, setting.key)
    # Variables are read with the file: one place says which wins. Hence no envvar here.
    if setting.plain_type is bool:
        return click.option(*names, is_flag=True, default=None, allow_from_autoenv=False, help=words)
    return click.option(
        *names,
        default=None,
        multiple=setting.setting.repeatable,
        metavar=_metavar(setting),
        allow_from_autoenv=False,
        help=words,
    )


def _metavar(setting: Described) -> str:
    if setting.key == "runner_settings":
        return "NAME=VALUE"
    names = {int: "NUMBER", float: "SECONDS", Path: "PATH"}
    if setting.key.endswith(("_url", "_endpoint")):
        return "URL"
    if setting.key == "ice_servers":
        return "JSON"
    return names.get(setting.plain_type, "TEXT")
