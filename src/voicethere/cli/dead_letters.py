"""`voicethere dead-letters …`: items of the queue that could not be stored, to be replayed or deleted."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from voicethere.cli.api import ControlApi, Refused
from voicethere.cli.failure import Failure
from voicethere.cli.options import json_option, limit_option
from voicethere.cli.terminal import json_document, line, note, rows, safe_lines, to_people
from voicethere.wire.control_plane import DeadLetterList, DeadLetterView, ReplayAccepted

_MOST_ITEM_BYTES = 256 * 1024
_PAGE = 100
_number = click.IntRange(1, 2**63 - 1)


@click.group("dead-letters")
def dead_letters() -> None:
    """Items of the queue that could not be stored: look at them, replay them, delete them."""


@dead_letters.command("list")
@limit_option
@click.option("--before", type=_number, metavar="NUMBER", help="Only older ones than this.")
@json_option
def list_letters(limit: int, before: int | None, as_json: bool) -> None:
    """List them, newest first.

    Piped: tab-separated number, time, size in bytes, problem, and the beginning of the item.
    """
    with ControlApi.connect() as api:
        if as_json:
            json_document(api.raw("/dead-letters", limit=limit, before=before))
            return
        found = api.get("/dead-letters", DeadLetterList, limit=limit, before=before)
    rows(
        ("number", "time", "bytes", "problem", "begins with"),
        [
            (str(letter.number), letter.created_at, str(letter.size_bytes), letter.problem, letter.preview)
            for letter in found.dead_letters
        ],
        nothing="No dead letters.",
    )
    if isinstance(found.next_before, int):
        note(f"There are {found.count:,} in all; older ones: --before {found.next_before}")


@dead_letters.command("show")
@click.argument("number", type=_number)
@click.option("--raw", is_flag=True, help="Only the item, byte for byte; not to a terminal.")
@json_option
def show_letter(number: int, raw: bool, as_json: bool) -> None:
    """Show one with what was kept of it: why it is here on stderr, the item on stdout."""
    if raw and as_json:
        raise click.UsageError("--raw and --json exclude each other.")
    if raw and to_people():
        raise click.UsageError("--raw is for a file or a pipe: the item may hold what a terminal obeys.")
    with ControlApi.connect() as api:
        if as_json:
            json_document(api.raw(f"/dead-letters/{number}"))
            return
        letter = api.get(f"/dead-letters/{number}", DeadLetterView)
    if raw:
        sys.stdout.buffer.write(_data(letter))
        return
    note(f"Dead letter {letter.number} of {letter.created_at}, {letter.size_bytes} bytes: {letter.problem}")
    if letter.truncated:
        note("Only the beginning was kept.")
    if isinstance(letter.text, str):
        click.echo(safe_lines(letter.text))
    else:
        note("It is no UTF-8 text: shown as base64.")
        line(str(letter.base64))


@dead_letters.command("replay")
@click.argument("number", type=_number, required=False)
@click.option("--all", "every", is_flag=True, help="Every letter there is now, the oldest first.")
@click.option(
    "--item",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="A file with the corrected item (JSON); - for standard input.",
)
def replay_letter(number: int | None, every: bool, item: Path | None) -> None:
    """Put letters on the queue again. What fails once more comes back as a new letter.

    The numbers of those that were replayed go to stdout. Exit status 1 where one could not be.
    """
    if (number is None) != every:
        raise click.UsageError("Give the NUMBER of a letter, or --all.")
    if item is not None and every:
        raise click.UsageError("--item corrects one letter: give its NUMBER instead of --all.")
    body = {} if item is None else {"item": _read_item(item)}
    refused = 0
    with ControlApi.connect() as api:
        if number is not None:
            _replay(api, number, body)
            return
        for each in _numbers(api):
            try:
                _replay(api, each, body)
            except Refused as problem:
                if problem.status not in (404, 409):
                    raise  # the queue or the server is away: the next one would fare no better
                refused += 1
                note(problem.message)
    if refused:
        raise Failure(f"{refused} could not be replayed: see `voicethere dead-letters show NUMBER`.")


@dead_letters.command("delete")
@click.argument("number", type=_number)
def delete_letter(number: int) -> None:
    """Throw one away, for good."""
    with ControlApi.connect() as api:
        api.send("DELETE", f"/dead-letters/{number}", type(None))
    note(f"Dead letter {number} is deleted.")


def _replay(api: ControlApi, number: int, body: dict[str, Any]) -> None:
    accepted = api.send("POST", f"/dead-letters/{number}/replay", ReplayAccepted, json=body)
    line(str(accepted.number))


def _numbers(api: ControlApi) -> list[int]:
    """Those that are there now, the oldest first: errors come before the end of their session."""
    found: list[int] = []
    before: int | None = None
    while True:
        page = api.get("/dead-letters", DeadLetterList, limit=_PAGE, before=before)
        found += [letter.number for letter in page.dead_letters]
        if not isinstance(page.next_before, int):
            return found[::-1]
        before = page.next_before


def _data(letter: DeadLetterView) -> bytes:
    if isinstance(letter.text, str):
        return letter.text.encode()
    return base64.b64decode(str(letter.base64))


def _read_item(path: Path) -> Any:
    try:
        with click.open_file(str(path), "rb") as file:
            data = file.read(_MOST_ITEM_BYTES + 1)
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > _MOST_ITEM_BYTES:
        raise Failure(f"{path} has more than {_MOST_ITEM_BYTES} bytes, the most that an item may have.")
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure(f"{path} is no JSON: {error}") from error
