"""`voicethere agent …`: for those who write agents; needs no server."""

from __future__ import annotations

from pathlib import Path

import click

from voicethere.cli.options import json_option


@click.group()
def agent() -> None:
    """Check agents on this machine, without a server."""


@agent.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def verify(file: Path, as_json: bool) -> None:
    """Load a bundle in the real sandbox and say what it registers; exit 1 with the reason otherwise."""
    from voicethere.cli.bundle_check import check_bundle

    check_bundle(file, as_json=as_json)
