"""The demo's result for people: a table and, per failure, the three sides of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, UnsetType
from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from voicethere.cli.demo.results import ScenarioResult, Timings

TITLES = {
    "healthy_turn": "a phrase is spoken, recognized and answered",
    "handler_raises": "the agent's handler raises",
    "child_killed": "the agent's process is killed",
    "text_turn_raises": "the handler raises on a chat message, no audio",
    "chat_turn_raises": "the handler raises in a conversation over the chat gateway",
}


def show(console: Console, results: Sequence[ScenarioResult]) -> None:
    """Print the table, and a panel for every failure."""
    console.print()
    console.print(_table(results))
    for result in results:
        if result.client_events:
            console.print(_panel(result))


def _table(results: Sequence[ScenarioResult]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title="What happened, and how many milliseconds after the fault it was …",
        title_justify="left",
        title_style="bold",
        padding=(0, 1),
    )
    for column in ("scenario", "mode", "the client got"):
        table.add_column(column, no_wrap=True)
    for column in ("told", "audible", "stored"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        timings = result.timings_ms if isinstance(result.timings_ms, Timings) else None
        codes = ", ".join(event.code for event in result.client_events)
        table.add_row(
            result.name,
            result.mode,
            codes or "an answer, no error",
            _ms(timings.fault_to_client if timings else UNSET),
            _ms(timings.fault_to_audio if timings else UNSET),
            _ms(timings.fault_to_stored if timings else UNSET),
        )
    return table


def _ms(value: float | UnsetType) -> str:
    return "–" if value is UNSET else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _panel(result: ScenarioResult) -> Panel:
    event, row = result.client_events[0], result.stored[0]
    lines: list[tuple[str, RenderableType]] = [
        (
            "client got",
            Text(f"{event.code}: “{event.message}” (recoverable: {str(event.recoverable).lower()})"),
        ),
    ]
    if result.records is not UNSET:
        record = result.records[0]
        words = (
            f"{record.kind} at stage {record.stage}, code {record.code}; a reload shows it in the timeline"
        )
        lines.append(("as a record", Text(words)))
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
