"""A soak as people read it: lines for a terminal, and a page with a chart for the docs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.soak.bounds import Verdict
from tools.soak.chart import Panel, svg
from tools.soak.measures import MEGABYTE, Sample
from tools.soak.run import Soaked

_COMMAND = "make soak"
_ROWS = ("sessions", "session_errors", "conversations")


def lines(soaked: Soaked) -> list[str]:
    """The account, the verdicts, and what it all comes to."""
    account, rests = soaked.account, _rests(soaked)
    text = [
        f"{soaked.target}: {account.sessions.total()} sessions, {account.caused.total()} errors caused, "
        f"{rests[-1]['session_errors/rows']:.0f} stored, {account.requests.total()} requests, "
        f"{account.deploys} deploys, {len(rests)} rests",
        "",
    ]
    for verdict in soaked.verdicts:
        mark = "ok  " if verdict.good else "GREW"
        moved, bound = _shown(verdict, verdict.moved), _shown(verdict, verdict.bound)
        text.append(
            f"{mark} {verdict.measure:28} {_shown(verdict, verdict.first):>12} → "
            f"{_shown(verdict, verdict.last):>12}   {moved:>12} of {bound} ({verdict.words})"
        )
    text += ["", *(f"DIFFERENCE: {words}" for words in account.differences)]
    text.append("Everything is flat or explained." if soaked.good else "NOT everything is flat or explained.")
    return text


def write_page(soaked: Soaked, page: Path, options: Sequence[str]) -> None:
    """The page, and its chart beside it in `images/`."""
    picture = page.parent / "images" / f"{page.stem}.svg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(svg(_panels(soaked), x_unit="minutes", x_scale=60), encoding="utf-8")
    page.write_text(_page(soaked, f"images/{picture.name}", options), encoding="utf-8")


def _page(soaked: Soaked, picture: str, options: Sequence[str]) -> str:
    account, plan, rests = soaked.account, soaked.plan, _rests(soaked)
    minutes = (rests[-1]["seconds"] - rests[0]["seconds"]) / 60
    machine = f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}"
    arguments = " ".join(options)
    rows = "\n".join(
        f"| {verdict.measure} | {_shown(verdict, verdict.first)} | {_shown(verdict, verdict.last)} | "
        f"{_shown(verdict, verdict.moved)} | {_shown(verdict, verdict.bound)} | {verdict.words} | "
        f"{'yes' if verdict.good else '**no**'} |"
        for verdict in soaked.verdicts
    )
    kinds = "\n".join(f"| {kind} | {count:,} |" for kind, count in account.sessions.most_common())
    codes = "\n".join(f"| `{code}` | {count:,} |" for code, count in account.caused.most_common())
    differences = "\n".join(f"- {words}" for words in account.differences) or "None."
    verdict = "Everything is flat or explained" if soaked.good else "**Not everything is flat or explained**"
    return f"""# The soak

Written by `{_COMMAND} ARGS="{arguments}"` (do not edit): the whole platform under steady, mixed traffic, and
what it holds over time.

{verdict}: {soaked.target}, {minutes:.0f} minutes behind warming up, on {machine}. About {plan.rate:g}
sessions began a second, data, voice and chat; agents raised, were killed and were left; clients came back
after losses and fell silent; every {plan.deploy_every:.0f} s a new build was deployed, and another one by
force. Every {plan.phase:.0f} s the traffic rested until three sessions were left that stay for all of it:
what is judged was sampled then.

{account.sessions.total():,} sessions, {account.requests.total():,} reads of the API beside them,
{account.deploys:,} deploys. {account.caused.total():,} errors were caused,
{rests[-1]["session_errors/rows"]:,.0f} are stored. Of each session it was checked that its client was told
exactly what happened, that exactly this was stored when the API showed its end, and that the end has its
reason.

![Memory, descriptors, threads and rows over time]({picture})

Differences between what was caused and what was told or stored:

{differences}

## What was measured

Memory is the proportional set size in MB; `clients` is the process that all of the soak's own clients live
in. For what must be flat, "moved" is the robust slope (Theil–Sen over the samples at rest) times the time
that is judged; for what is explained, the slope for each session, error or deploy; for what is capped, the
most that was seen.

| measure | first | last | moved | at most | must be | is |
| --- | ---: | ---: | ---: | ---: | --- | --- |
{rows}

## What was done

| sessions | |
| --- | ---: |
{kinds}

| errors caused | |
| --- | ---: |
{codes}
"""


def _rests(soaked: Soaked) -> list[Sample]:
    return [sample for sample in soaked.samples if sample["at_rest"]]


def _panels(soaked: Soaked) -> list[Panel]:
    first = _rests(soaked)[0]

    def lines_of(samples: Sequence[Sample], unit: str, keep: Callable[[str], bool]) -> Panel | None:
        names = [name for name in first if name.endswith(f"/{unit}") and keep(name)]
        found = {
            name.removesuffix(f"/{unit}"): [(one["seconds"], one.get(name, 0.0)) for one in samples]
            for name in names
        }
        return Panel(unit, found) if found else None

    rests = _rests(soaked)
    wanted = (
        ("megabytes at rest", lines_of(rests, "megabytes", lambda _: True)),
        ("megabytes under load", lines_of(soaked.samples, "megabytes", lambda _: True)),
        ("descriptors at rest", lines_of(rests, "descriptors", lambda _: True)),
        ("threads at rest", lines_of(rests, "threads", lambda _: True)),
        (
            "rows",
            lines_of(soaked.samples, "rows", lambda name: first_word(name) in _ROWS),
        ),
        ("bytes", lines_of(soaked.samples, "bytes", lambda _: True)),
    )
    return [Panel(title, panel.lines) for title, panel in wanted if panel is not None]


def first_word(measure: str) -> str:
    """What a measure is of."""
    return measure.partition("/")[0]


def _shown(verdict: Verdict, value: float) -> str:
    unit = verdict.measure.rpartition("/")[2]
    if unit == "bytes":
        if abs(value) >= MEGABYTE:
            return f"{value / MEGABYTE:,.1f} MB"
        return f"{value / 1024:,.1f} KB"
    if unit == "megabytes":
        return f"{value:,.1f} MB"
    return f"{value:,.2f}".rstrip("0").rstrip(".")
