"""The `voicethere` command. To add one: a line in `COMMANDS`, and a click command where it points."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import click

from voicethere import __version__
from voicethere.cli.failure import Failure
from voicethere.cli.lazy_group import LazyCommand, LazyGroup

COMMANDS: Mapping[str, LazyCommand] = {
    "up": LazyCommand("voicethere.cli.up:up", "Run the whole platform on this machine."),
    "demo": LazyCommand(
        "voicethere.cli.demo.command:demo", "Five real sessions, four of which fail out loud."
    ),
    "faults": LazyCommand("voicethere.cli.faults.command:faults", "Inject every fault, see who is told."),
    "serve": LazyCommand("voicethere.cli.serve:serve", "Run one role as a process of its own."),
    "login": LazyCommand("voicethere.cli.login:login", "Check a key and keep it."),
    "projects": LazyCommand("voicethere.cli.projects:projects", "Projects, settings, session errors."),
    "build": LazyCommand("voicethere.cli.builds:build", "Upload bundles, choose the active one."),
    "deploy": LazyCommand("voicethere.cli.deploy:deploy", "Put a build into service."),
    "undeploy": LazyCommand("voicethere.cli.deploy:undeploy", "Take a project out of service."),
    "sessions": LazyCommand("voicethere.cli.sessions:sessions", "The sessions of a project."),
    "chat": LazyCommand("voicethere.cli.chat.command:chat", "Talk to an agent in the terminal."),
    "dead-letters": LazyCommand(
        "voicethere.cli.dead_letters:dead_letters", "Queue items that could not be stored; replay them."
    ),
    "api-keys": LazyCommand("voicethere.cli.api_keys:api_keys", "Keys for administration and clients."),
    "agent": LazyCommand("voicethere.cli.agent:agent", "Check agents on this machine."),
    "errors": LazyCommand("voicethere.cli.errors:errors", "What each session error code means."),
    "doctor": LazyCommand(
        "voicethere.cli.doctor.command:doctor", "What this machine can do, and what it lacks."
    ),
    "schema": LazyCommand("voicethere.cli.schema:schema", "The JSON Schema of the wire messages."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "VOICETHERE"},
)
@click.version_option(__version__, prog_name="voicethere")
def cli() -> None:
    """Conversational agent sessions in which no session ever fails silently."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and exit: 0 done, 1 refused or failed (one line says why), 2 wrong usage."""
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name="voicethere")
    except Exception as error:
        if os.environ.get("VOICETHERE_DEBUG"):
            raise
        words = f"unexpected {type(error).__name__}: {error} (VOICETHERE_DEBUG=1 shows where)"
        Failure(words).show()
        sys.exit(1)


if __name__ == "__main__":
    main()


if __name__ == "__main__":
    main()
