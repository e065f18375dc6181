"""`voicethere demo`: runs the scenarios on a platform of its own and shows them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from pathlib import Path

import click
import msgspec
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.markup import escape

from voicethere.cli.demo.chat_scenario import chat_turn_raises
from voicethere.cli.demo.phrases import PHRASES
from voicethere.cli.demo.report import TITLES, show
from voicethere.cli.demo.results import ScenarioResult
from voicethere.cli.demo.scenarios import (
    ERROR_MESSAGE,
    Stage,
    child_killed,
    handler_raises,
    healthy_turn,
    text_turn_raises,
)
from voicethere.cli.ears import DidNotHappen
from voicethere.cli.starting import starting
from voicethere.testing.distributed import distributed_platform
from voicethere.testing.platform_process import Operator, PlatformFailed, RunningPlatform, fresh_platform

_SVG_WIDTH = 118
# Without the web font of rich's own format: a picture in a repository loads nothing from elsewhere.
_SVG_FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. `problems` says in plain sentences what did not happen."""

    ok: bool
    scenarios: list[ScenarioResult]
    problems: list[str] = []


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout.")
@click.option(
    "--svg", type=click.Path(path_type=Path, dir_okay=False), help="Keep a picture of what is shown."
)
@click.option("--seed", type=int, default=None, help="Draw the phrase of the healthy turn with this seed.")
@click.option(
    "--engines",
    type=click.Choice(["embedded", "distributed"]),
    default="embedded",
    show_default=True,
    help="Files of this machine, or a Redis and a PostgreSQL started for this, with every role apart.",
)
def demo(as_json: bool, svg: Path | None, seed: int | None, engines: str) -> None:
    """Five real sessions on a fresh platform, four of which fail out loud.

    Real speech over real WebRTC, and a real chat, with agents in a real sandbox. Exit status 1 when anything
    did not happen.
    """
    console = Console(stderr=as_json, record=svg is not None, width=_SVG_WIDTH if svg is not None else None)
    phrase = random.Random(seed).choice(PHRASES)  # noqa: S311 - a phrase to say
    result = asyncio.run(_run(console, phrase, engines))
    if not as_json and result.scenarios:
        show(console, result.scenarios)
    for problem in result.problems:
        console.print(f"[red]✗[/] {escape(problem)}")
    if result.ok:
        console.print(
            "[green]✓[/] Every failure was told to the client, heard by the caller and stored once."
        )
    if as_json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    if svg is not None:
        svg.parent.mkdir(parents=True, exist_ok=True)
        console.save_svg(str(svg), title="voicethere demo", code_format=_SVG_FORMAT)
    if not result.ok:
        sys.exit(1)


class _Doors(msgspec.Struct, frozen=True):
    """Where callers go, where chats go, and where the operator goes."""

    calls: RunningPlatform
    chats: RunningPlatform
    control: RunningPlatform


@contextlib.asynccontextmanager
async def _platform(engines: str) -> AsyncIterator[_Doors]:
    """A fresh one."""
    if engines == "embedded":
        async with starting(fresh_platform()) as platform:
            yield _Doors(platform, platform, platform)
    else:
        async with starting(distributed_platform(gateways=1)) as roles:
            yield _Doors(roles.session_service, roles.chat_gateway, roles.control_plane)


async def _run(console: Console, phrase: str, engines: str) -> DemoResult:
    from voicethere.adapters.speech.espeak import EspeakSynthesizer

    results: list[ScenarioResult] = []
    problems: list[str] = []

    def progress(text: str) -> None:
        console.print(f"  [dim]·[/] {escape(text)}")

    async def play(name: str, scenario: Callable[[], Awaitable[ScenarioResult]]) -> None:
        console.print(f"[bold]{name}[/]: {TITLES[name]}")
        try:
            results.append(await scenario())
        except (DidNotHappen, PlatformFailed, OSError) as problem:
            problems.append(f"{name}: {problem}")

    console.print("Starting a platform of its own …")
    voice = EspeakSynthesizer()
    try:
        async with _platform(engines) as doors, Operator(doors.control) as operator:
            progress(f"it serves at {doors.calls.base_url}")
            settings = {"error_message": ERROR_MESSAGE}
            bundle = resources.files("voicethere.cli.demo").joinpath("demo_agent.py").read_bytes()
            talking = await operator.deploy(bundle, name="demo", mode="voice", session_settings=settings)
            typing = await operator.deploy(bundle, name="demo-data", mode="data", session_settings=settings)
            progress("the demo's agent is uploaded, validated in the sandbox, promoted and deployed")
            stage = Stage(base_url=doors.calls.base_url, operator=operator, voice=voice, progress=progress)
            await play("healthy_turn", lambda: healthy_turn(stage, talking, phrase))
            await play("handler_raises", lambda: handler_raises(stage, talking))
            await play("child_killed", lambda: child_killed(stage, talking))
            await play("text_turn_raises", lambda: text_turn_raises(stage, typing))
            await play(
                "chat_turn_raises",
                lambda: chat_turn_raises(
                    gateway_url=doors.chats.base_url,
                    operator=operator,
                    deployed=typing,
                    phrase=phrase,
                    progress=progress,
                ),
            )
    except PlatformFailed as problem:
        problems.append(str(problem))
    finally:
        await voice.aclose()
    return DemoResult(ok=not problems, scenarios=results, problems=problems)
