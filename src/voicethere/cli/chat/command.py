"""`voicethere chat`: options, and the choice between the screen for people and the lines for scripts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from voicethere.cli.chat.target import ChatTarget, chat_target, issued_conversation_id, new_conversation_id
from voicethere.cli.failure import Failure
from voicethere.cli.options import project_option
from voicethere.cli.terminal import note

if TYPE_CHECKING:
    from voicethere.chat import ConversationManager

_MAX_CONV_ID_CHARS = 200


@click.command()
@click.argument("conv_id", required=False)
@click.option("--base-url", metavar="URL", help="The chat gateway's base, such as https://host/c/vthc_….")
@project_option
@click.option(
    "--key", metavar="KEY", help="A client key, or another key of the project; default: the one of login."
)
@click.option("--profile", metavar="NAME", help="Sent with every request, for gateways that know profiles.")
@click.option("--issued", is_flag=True, help="Have the gateway issue the id of a new conversation.")
@click.option(
    "--json-events", is_flag=True, help="No screen: a JSON object per line; prompts are lines of stdin."
)
@click.option(
    "--send", "prompts", metavar="TEXT", multiple=True, help="Send this; with --json-events instead of stdin."
)
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0.1, 86_400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="With --json-events: for the connection, and for each reply.",
)
@click.option(
    "--settle",
    "settle_seconds",
    type=click.FloatRange(0, 3_600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="With --json-events: a reply is done when nothing streams and nothing came for so long.",
)
@click.option(
    "--export-folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="Where the debug panel writes its files; default: here.",
)
def chat(
    conv_id: str | None,
    base_url: str | None,
    project: str | None,
    key: str | None,
    profile: str | None,
    issued: bool,
    json_events: bool,
    prompts: tuple[str, ...],
    wait_seconds: float,
    settle_seconds: float,
    export_folder: Path,
) -> None:
    """Talk to an agent in the terminal: a new conversation, or CONV_ID.

    Keys are on the screen; F1 shows all. With --json-events the exit status is 1 when a prompt was refused,
    had no whole reply in time, or the session failed.
    """
    if conv_id is not None:
        if issued:
            raise click.UsageError("--issued is for a new conversation: leave CONV_ID out.")
        if not 0 < len(conv_id) <= _MAX_CONV_ID_CHARS or not conv_id.isprintable():
            raise click.UsageError(f"CONV_ID must have 1 to {_MAX_CONV_ID_CHARS} printable characters.")
    if any(not text.strip() for text in prompts):
        raise click.UsageError("--send needs a text that is not blank.")
    if not json_events and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("this needs a terminal; --json-events is for scripts and pipes.")
    target = chat_target(base_url, project, key)
    conv_id = conv_id or (issued_conversation_id(target) if issued else new_conversation_id())
    try:
        if json_events:
            done = asyncio.run(_json_events(target, conv_id, profile, prompts, wait_seconds, settle_seconds))
            sys.exit(0 if done else 1)
        asyncio.run(_screen(target, conv_id, profile, prompts, export_folder))
    except KeyboardInterrupt:
        sys.exit(130)
    note(f"The conversation stays: voicethere chat {conv_id}")


async def _screen(
    target: ChatTarget, conv_id: str, profile: str | None, prompts: tuple[str, ...], export_folder: Path
) -> None:
    try:
        from voicethere.cli.chat.app import ChatApp
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != "textual":
            raise
        raise Failure(
            "the terminal client needs Textual: pip install 'voicethere[chat-tui]' (or use --json-events)."
        ) from missing

    async with _manager(target, profile) as manager:
        app = ChatApp(
            manager.store,
            manager.log,
            conv_id,
            manager.conversation(conv_id),
            prompts=prompts,
            export_folder=export_folder,
            no_color=bool(os.environ.get("NO_COLOR")),
        )
        await app.run_async()
        if app.return_code:
            raise Failure("the terminal client failed; what it printed above says why.")


async def _json_events(
    target: ChatTarget,
    conv_id: str,
    profile: str | None,
    prompts: tuple[str, ...],
    wait_seconds: float,
    settle_seconds: float,
) -> bool:
    from voicethere.cli.chat.json_events import converse
    from voicethere.cli.chat.prompts_in import given_prompts, prompts_of_stdin

    async with _manager(target, profile) as manager:
        source = given_prompts(prompts) if prompts else prompts_of_stdin()
        return await converse(
            manager, conv_id, source, wait_seconds=wait_seconds, settle_seconds=settle_seconds
        )


def _manager(
    target: ChatTarget, profile: str | None
) -> contextlib.AbstractAsyncContextManager[ConversationManager]:
    from voicethere.chat import ChatStore, ConversationManager

    try:
        return ConversationManager(ChatStore(), target.base_url, profile=profile, headers=target.headers)
    except ValueError as problem:
        raise Failure(f"{problem}.") from problem
