"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from voicethere.cli.failure import Failure

F = TypeVar("F", bound=Callable[..., Any])

project_option = click.option(
    "--project", "project", metavar="PROJECT", help="Slug, name or id; default: the active project."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="At most so many."
)


def read_bundle_file(path: Path) -> bytes:
    """The bytes of a bundle on this machine.

    Raises:
        Failure: it cannot be read, or is larger than any server takes.
    """
    from voicethere.core.bundle import BundleLimits

    most = BundleLimits().packed_bytes
    try:
        if path.stat().st_size > most:
            raise Failure(
                f"{path} is larger than {most // (1024 * 1024)} MiB, the most that a bundle may be."
            )
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror or error}") from error
