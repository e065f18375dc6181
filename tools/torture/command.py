"""`python -m tools.torture`: runs it for one seed or several, prints accounts, fails on any difference."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from tools.torture.engines import NoEngines
from tools.torture.network import NoNetwork
from tools.torture.processes import NotStarted
from tools.torture.report import BEGIN, report, shown
from tools.torture.run import Outcome, torture_run

Result = TypeVar("Result")
QUICK_SECONDS = 30.0


class Seeds(click.ParamType[list[int]]):
    """`3`, `1-10` or `1,4,7`."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """The numbers, in order."""
        if isinstance(value, list):
            return value
        seeds: list[int] = []
        for part in str(value).split(","):
            first, dash, last = part.partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                self.fail(f"{value!r} is no list of seeds; it must be like 3, 1-10 or 1,4,7", param, ctx)
            seeds += range(int(first), int(last or first) + 1)
        if not seeds:
            self.fail(f"{value!r} holds no seed: the first one is greater than the last", param, ctx)
        return seeds


@click.command()
@click.option("--seed", type=int, help="What is hit, and when: the same seed, the same schedule.")
@click.option("--seeds", type=Seeds(), help="Several, one run after the other, such as 1-10.")
@click.option("--seconds", type=click.FloatRange(20, 86_400), default=120.0, show_default=True)
@click.option(
    "--rate", type=click.FloatRange(1, 10_000), default=200.0, show_default=True, help="Errors a second."
)
@click.option(
    "--clients", type=click.IntRange(0, 1000), default=12, show_default=True, help="Sessions at a time."
)
@click.option("--chats", type=click.IntRange(0, 1000), default=6, show_default=True, help="Conversations.")
@click.option("--quick", is_flag=True, help=f"{QUICK_SECONDS:g} seconds: whether it runs at all.")
@click.option("--keep", is_flag=True, help="Leave logs, journals and databases; they are named at the end.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the accounts there.")
@click.option(
    "--report", "report_file", type=click.Path(path_type=Path), help="Write the table into this page."
)
def torture(
    seed: int | None,
    seeds: list[int] | None,
    seconds: float,
    rate: float,
    clients: int,
    chats: int,
    quick: bool,
    keep: bool,
    json_file: Path | None,
    report_file: Path | None,
) -> None:
    """Run the whole platform, break it in every way, and account for every error, session and prompt."""
    if seed is not None and seeds is not None:
        raise click.UsageError("--seed is for one run, --seeds for several: give one of them")
    wanted = seeds or [1 if seed is None else seed]
    length = QUICK_SECONDS if quick else seconds
    outcomes = []
    for number in wanted:
        click.secho(f"== torture, seed {number}, {length:g} s at {rate:g} errors/s", bold=True)
        outcome = _run(
            torture_run(
                seed=number,
                seconds=length,
                rate=rate,
                size=clients,
                chats=chats,
                keep=keep,
                say=click.echo,
            )
        )
        click.echo("\n" + shown(outcome))
        if outcome.logs is not None:
            click.echo(f"  logs: {outcome.logs}")
        outcomes.append(outcome)
        if json_file is not None:
            json_file.write_text(json.dumps([msgspec.to_builtins(one) for one in outcomes], indent=1) + "\n")
    if report_file is not None:
        _write(report_file, report(outcomes, command=_command(wanted, length, rate, clients, chats)))
    failed = [outcome.seed for outcome in outcomes if not outcome.passed]
    if failed:
        raise click.ClickException(f"the account does not balance for seed {', '.join(map(str, failed))}")


def _run(run: Coroutine[Any, Any, Outcome]) -> Outcome:
    """SIGTERM ends it as Ctrl-C does: in order."""

    async def cancellable() -> Outcome:
        task = asyncio.ensure_future(run)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(cancellable())
    except (NoNetwork, NoEngines, NotStarted, OSError) as problem:
        raise click.ClickException(str(problem)) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise click.ClickException("ended before its time; nothing is left of it") from None


def _command(seeds: list[int], seconds: float, rate: float, clients: int, chats: int) -> str:
    in_a_row = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1))
    which = f"{seeds[0]}-{seeds[-1]}" if in_a_row else ",".join(map(str, seeds))
    options = f"--seeds {which} --seconds {seconds:g} --rate {rate:g} --clients {clients} --chats {chats}"
    return f'make torture ARGS="{options} --report docs/torture.md"'


def _write(page: Path, table: str) -> None:
    """Behind the page's mark; what stands before it was written by people."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    page.write_text(text.partition(BEGIN)[0] + table, encoding="utf-8")
