"""`voicethere login`."""

from __future__ import annotations

import sys

import click

from voicethere.cli.api import ControlApi
from voicethere.cli.config import Credentials, effective_credentials, write_credentials
from voicethere.cli.failure import Failure
from voicethere.cli.terminal import note
from voicethere.wire.control_plane import ProjectList


@click.command()
@click.option("--api-base", metavar="URL", help="The control plane, such as http://127.0.0.1:8080.")
@click.option("--api-key", metavar="KEY", help="An org key (vth_…); asked for where it is not given.")
def login(api_base: str | None, api_key: str | None) -> None:
    """Check a key and keep it for the next commands.

    The key is stored in ~/.config/voicethere/credentials.json, readable by you alone.
    """
    base = api_base or effective_credentials_or_default()
    key = (api_key or _ask_for_key()).strip()
    if not key:
        raise Failure("no key was given: pass --api-key, or type it when asked.")
    with ControlApi(base, key) as api:
        found = len(api.get("/projects", ProjectList).projects)
        path = write_credentials(Credentials(api_base=base, api_key=key))
        note(f"Logged in to {api.base} ({found} project{'' if found == 1 else 's'}); kept in {path}.")


def effective_credentials_or_default() -> str:
    """The server in force; a broken credentials file does not stop the login that mends it."""
    from voicethere.cli.config import DEFAULT_API_BASE

    try:
        return effective_credentials().api_base or DEFAULT_API_BASE
    except Failure:
        return DEFAULT_API_BASE


def _ask_for_key() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("API key", hide_input=True, err=True))
    return sys.stdin.readline()
