"""`voicethere schema`: the JSON Schema of every message on the wire."""

from __future__ import annotations

from pathlib import Path

import click

from voicethere.cli.failure import Failure
from voicethere.cli.terminal import json_document, note


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="A folder; default: standard output."
)
def schema(out: Path | None) -> None:
    """Print the JSON Schema of the wire messages, or write it into a folder."""
    from voicethere.wire.schema import json_schemas, write

    if out is None:
        json_document(json_schemas())
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        write(out)
    except OSError as error:
        raise Failure(f"cannot write to {out}: {error.strerror or error}") from error
    note(f"Written to {out}.")
