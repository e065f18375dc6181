"""How a command says that something was refused or failed: one line on stderr, exit status 1."""

from __future__ import annotations

from typing import IO, Any

import click

from voicethere.cli.terminal import safe_line


class Failure(click.ClickException):
    """Refused or failed. `message` is one line for people; wrong usage is `click.UsageError` (status 2)."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"voicethere: {safe_line(self.message)}", file=file, err=file is None)
