"""`voicethere faults`: injects every fault into real sessions and shows who was told of it."""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from voicethere.adapters.speech.espeak import EspeakSynthesizer
from voicethere.cli.failure import Failure
from voicethere.cli.faults.expected import Expected
from voicethere.cli.faults.matrix import Case, Engines, Matrix, chosen
from voicethere.testing.platform_process import PlatformFailed

_PIPED_WIDTH = 160


@click.command()
@click.argument("names", nargs=-1, metavar="[FAULT]...")
@click.option(
    "--repeat", type=click.IntRange(1, 1000), default=1, show_default=True, help="Each this many times."
)
@click.option(
    "--engines",
    type=click.Choice(["embedded", "distributed"]),
    default="embedded",
    show_default=True,
    help="Files of this machine, or a Redis and a PostgreSQL started for this, with every role apart.",
)
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout.")
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the table as Markdown."
)
def faults(names: tuple[str, ...], repeat: int, engines: Engines, as_json: bool, report: Path | None) -> None:
    """Inject every fault (or the named ones) into real sessions, and show who was told what.

    The client, the caller, the store and the command line are all looked at, and compared with a reviewed
    table. Exit status 1 when a fault was not explained as it must be.
    """
    try:
        cells = chosen(names)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console = Console(stderr=as_json, width=_PIPED_WIDTH)
    total = len(cells) * repeat
    done = 0

    def progress(name: str, mode: str, wrong: list[str]) -> None:
        nonlocal done
        done += 1
        sign = "[green]✓[/]" if not wrong else "[red]✗[/]"
        console.print(f"{sign} {done}/{total} {name} ({mode})" + escape("".join(f"\n    {w}" for w in wrong)))

    try:
        cases = asyncio.run(_run(cells, repeat, engines, progress))
    except PlatformFailed as problem:
        raise Failure(str(problem)) from problem
    explained = sum(case.explained for case in cases)
    if as_json:
        body = {"ok": explained == len(cases), "explained": explained, "of": len(cases), "cases": cases}
        sys.stdout.write(msgspec.json.encode(body).decode() + "\n")
    else:
        _show(console, cases, repeat)
        console.print(f"explained {explained} of {len(cases)}")
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(markdown(cases, repeat))
    sys.exit(0 if explained == len(cases) else 1)


async def _run(
    cells: list[tuple[str, str, Expected]],
    repeat: int,
    engines: Engines,
    progress: Callable[[str, str, list[str]], None],
) -> list[Case]:
    voice = EspeakSynthesizer()
    try:
        return await Matrix(voice=voice, repeat=repeat, engines=engines, progress=progress).run(cells)
    finally:
        await voice.aclose()


def _show(console: Console, cases: Sequence[Case], repeat: int) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for column in ("fault", "mode", "the client got", "ms", "heard", "stored", "CLI", "others", ""):
        table.add_column(column, justify="right" if column == "ms" else "left", overflow="fold")
    for case in cases:
        table.add_row(*(escape(cell) for cell in _cells(case, repeat)))
    console.print(table)


def markdown(cases: Sequence[Case], repeat: int) -> str:
    """The table as a page of its own, for the record."""
    lines = [
        "# The fault matrix",
        "",
        f"Each fault {repeat} times, each time in a session of its own. Made by",
        f"`voicethere faults --repeat {repeat} --report docs/faults.md`. An error marked ~ calls itself",
        "recoverable; ms is the median from the fault to the client's first error. What must come of each",
        "fault stands in `src/voicethere/cli/faults/expectations.toml`.",
        "",
        "| fault | what happens | mode | the client got | ms | heard | stored | CLI | others | |",
        "| --- | --- | --- | --- | ---: | --- | --- | --- | --- | --- |",
    ]
    for case in cases:
        name, *rest = _cells(case, repeat)
        lines.append(f"| {name} | {case.title} | " + " | ".join(rest) + " |")
    explained = sum(case.explained for case in cases)
    return "\n".join([*lines, "", f"explained {explained} of {len(cases)}", ""])


def _cells(case: Case, repeat: int) -> list[str]:
    first = case.observed[0]
    times = [seen.told_ms for seen in case.observed if seen.told_ms is not None]
    same = sum(seen.client == first.client for seen in case.observed)
    verdict = "explained" if case.explained else "; ".join(case.wrong)
    return [
        case.fault,
        case.mode,
        ", ".join(first.client) or "nothing",
        f"{statistics.median(times):.0f}" if times else "–",
        first.heard if case.mode == "voice" else "–",
        ", ".join(first.rows) or "–",
        "yes" if first.cli and first.cli == first.rows else "–",
        "disturbed" if any(seen.disturbed for seen in case.observed) else "fine",
        verdict if repeat == 1 else f"{verdict} {same}/{repeat}",
    ]
