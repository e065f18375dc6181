"""`voicethere doctor`: the list of checks, and the command that runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from voicethere.cli.doctor import engines, machine, network, running, sandbox, shown, speech, storage
from voicethere.cli.doctor.findings import Check, Checked, Level, run_checks
from voicethere.cli.failure import Failure
from voicethere.cli.layout import DataLayout
from voicethere.cli.options import json_option
from voicethere.cli.terminal import json_document, to_people

_REPORT = "Please report this, with what `voicethere doctor --json` prints."
_DISK = "Look at the disk of the data directory, or name another: `voicethere up --data-dir`."


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path(".voicethere/data"),
    show_default=True,
    help="As for `voicethere up`.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="As for `voicethere up`.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="As for `voicethere up`."
)
@click.option(
    "--redis-url",
    envvar="VOICETHERE_REDIS_URL",
    help="Of roles on several machines: their Redis, redis://[user:password@]host:port/0.",
)
@click.option(
    "--database-url",
    envvar="VOICETHERE_DATABASE_URL",
    help="Of roles on several machines: their database, postgresql://user:password@host/database.",
)
@json_option
def doctor(
    data_dir: Path, host: str, port: int, redis_url: str | None, database_url: str | None, as_json: bool
) -> None:
    """Report what this machine can do, and what to do about what it cannot.

    Exit status 1 where something is missing that `voicethere up` needs. Piped: tab-separated check, level
    (ok, warning, failed), what was found, what to do. Nothing is changed, and nothing is left behind.

    With --redis-url or --database-url, also what these promise, and what they may lose.
    """
    todo = [*checks(DataLayout(data_dir), host, port), *engines.checks(redis_url, database_url)]
    lines = asyncio.run(_report(todo, as_json=as_json))
    if as_json:
        json_document(shown.as_json(lines))
    if any(line.level is Level.FAILED for line in lines):
        raise Failure(shown.summary(lines))


def checks(layout: DataLayout, host: str, port: int) -> Sequence[Check]:
    """All of them, in the order of the report."""
    return (
        Check(name="python", run=machine.python, needed=True, todo=_REPORT),
        # It imports everything: more than 10 s on a small machine that is busy, which is no failure.
        Check(name="packages", run=machine.packages, needed=True, todo=_REPORT, seconds=60.0),
        Check(name="memory", run=machine.memory, needed=False, todo=_REPORT),
        Check(name="sandbox walls", run=sandbox.walls, needed=True, todo=_REPORT),
        Check(name="confined child", run=sandbox.confined_child, needed=True, todo=_REPORT, seconds=20.0),
        Check(name="speech", run=speech.providers, needed=False, todo=_REPORT),
        Check(name="speech round trip", run=speech.round_trip, needed=False, todo=_REPORT, seconds=30.0),
        Check(name="addresses", run=network.addresses, needed=True, todo=_REPORT),
        Check(name="udp", run=network.udp, needed=True, todo=_REPORT),
        Check(name="port", run=lambda: network.port(host, port), needed=True, todo=_REPORT),
        Check(name="data directory", run=lambda: storage.data_directory(layout), needed=True, todo=_DISK),
        Check(name="database", run=lambda: storage.database(layout), needed=True, todo=_DISK, seconds=20.0),
        Check(name="error queue", run=lambda: storage.queue(layout), needed=True, todo=_DISK, seconds=15.0),
        Check(name="running platform", run=running.platform, needed=False, todo=_REPORT),
    )


async def _report(todo: Sequence[Check], *, as_json: bool) -> list[Checked]:
    """Run them, and show each as soon as it is known."""
    lines: list[Checked] = []
    pretty = shown.Pretty(todo) if to_people() and not as_json else None
    async for line in run_checks(todo):
        lines.append(line)
        if pretty is not None:
            pretty.line(line)
        elif not as_json:
            shown.plain(line)
    if pretty is not None and all(line.level is not Level.FAILED for line in lines):
        pretty.summary(shown.summary(lines))
    return lines
