"""The demo's result for people: a table and, per failure, the three sides of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET
from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from voicethere.cli.demo.scenarios import ScenarioResult, Timings

TITLES = {
    "healthy_turn": "a phrase is spoken, recognized and answered",
    "handler_raises": "the agent's handler raises",
    "child_killed": "the agent's process is killed",
    "text_turn_raises": "the handler raises on a chat message, no audio",
}


def show(console: Console, results: Sequence[ScenarioResult]) -> None:
    """Print the table, and a panel for every failure."""
    console.print()
    console.print(_table(results))
    for result in results:
        if result.client_events:
            console.print(_panel(result))


def _table(results: Sequence[ScenarioResult]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="What happened", title_justify="left", title_style="bold")
    for column in (
        "scenario",
        "mode",
        "client got",
        "heard",
        "stored",
        "fault → client",
        "→ audible",
        "→ stored",
    ):
        table.add_column(column, justify="right" if "→" in column else "left", no_wrap=True)
    for result in results:
        timings = result.timings_ms if isinstance(result.timings_ms, Timings) else None
        audible = timings is not None and timings.fault_to_audio is not UNSET
        table.add_row(
            result.name,
            result.mode,
            ", ".join(event.code for event in result.client_events) or "no error",
            _heard(result),
            f"{len(result.stored)} row" if result.stored else "–",
            f"{timings.fault_to_client:.1f} ms" if timings else "–",
            f"{timings.fault_to_audio:.0f} ms" if timings is not None and audible else "–",
            f"{timings.fault_to_stored:.0f} ms" if timings else "–",
        )
    return table


def _heard(result: ScenarioResult) -> str:
    if result.crash_speech is not UNSET:
        return f"crash message, {result.crash_speech.seconds:.1f} s"
    return "the answer" if result.answer is not UNSET else "–"


def _panel(result: ScenarioResult) -> Panel:
    event, row = result.client_events[0], result.stored[0]
    lines: list[tuple[str, RenderableType]] = [
        (
            "client got",
            Text(f"{event.code}: “{event.message}” (recoverable: {str(event.recoverable).lower()})"),
        ),
    ]
    if result.crash_speech is not UNSET:
        heard = result.crash_speech
        lines.append(
            ("was spoken", Text(f"“{heard.text}” — {heard.seconds:.1f} s of sound, loudness {heard.rms:.3f}"))
        )
    lines += [
        ("was stored", Text(f"{row['source']} · {row['code']} · {row['message']}")),
        ("with", Text(_with(row))),
    ]
    if row["stack_trace"]:
        lines.append(("stack ends", Text("\n".join(str(row["stack_trace"]).strip().splitlines()[-5:]))))
    body = Table.grid(padding=(0, 2))
    body.add_column(style="dim", no_wrap=True)
    body.add_column(overflow="fold")
    for label, content in lines:
        body.add_row(label, content)
    title = Text(f"{result.name}: {TITLES[result.name]}")
    return Panel(Group(body), title=title, title_align="left", border_style="red", box=box.ROUNDED)


def _with(row: dict[str, Any]) -> str:
    details = {key: value for key, value in row["details"].items() if key != "last_log_lines"}
    known = ", ".join(f"{key}: {value}" for key, value in details.items())
    return f"customer context {row['customer_context']}" + (f"; {known}" if known else "")
