"""`voicethere errors …`: the catalog of session error codes, for people. Needs no server.

The errors that happened are elsewhere: `voicethere projects errors list`.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click
import msgspec

from voicethere.cli.failure import Failure
from voicethere.cli.options import json_option
from voicethere.cli.terminal import json_document, note, rows, to_people
from voicethere.errors import CATALOG, CodeInfo, SessionErrorCode


@click.group()
def errors() -> None:
    """What each session error code means, and what to do about it."""


@errors.command("list")
@json_option
def list_codes(as_json: bool) -> None:
    """List all codes. Piped: tab-separated code, scope, source, recoverable, when it comes."""
    if as_json:
        json_document({"codes": [_as_json(info) for info in CATALOG.values()]})
        return
    rows(
        ("code", "scope", "source", "recoverable", "when"),
        [
            (info.code.value, info.scope.value, _source(info), _recoverable(info), info.when)
            for info in CATALOG.values()
        ],
        nothing="No codes.",
    )


@errors.command("explain")
@click.argument("code")
@json_option
def explain(code: str, as_json: bool) -> None:
    """Explain one code: its cause, what to do, and what the client sees.

    Capitals do not matter. Piped: tab-separated name and text.
    """
    info = find_code(code)
    if as_json:
        json_document(_as_json(info))
    elif to_people():
        from voicethere.cli.errors_shown import show

        show(info)
    else:
        for name, text in _lines(info):
            click.echo(f"{name}\t{text}")


@errors.command("docs")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A folder; its pages of the same names are written anew.",
)
def docs(out: Path) -> None:
    """Write the catalog as Markdown: an index, and one page for each code."""
    from voicethere.cli.errors_pages import pages

    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in pages().items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot write to {out}: {error.strerror or error}") from error
    note(f"Written to {out}.")


def find_code(text: str) -> CodeInfo:
    """The catalog's entry; capitals, dashes and blanks do not matter.

    Raises:
        Failure: there is no such code; the words name the near ones.
    """
    wanted = text.strip().upper().replace("-", "_").replace(" ", "_")
    if wanted in CATALOG:
        return CATALOG[SessionErrorCode(wanted)]
    near = _near(wanted)
    hint = f"did you mean {' or '.join(near)}?" if near else "`voicethere errors list` shows all of them."
    raise Failure(f"there is no code '{text}': {hint}")


def _near(wanted: str) -> list[str]:
    codes = [code.value for code in SessionErrorCode]
    containing = [code for code in codes if wanted and wanted in code]
    similar = difflib.get_close_matches(wanted, codes, n=3, cutoff=0.5)
    return list(dict.fromkeys(containing + similar))[:4]


def _source(info: CodeInfo) -> str | None:
    return info.source.value if info.source is not None else None


def _recoverable(info: CodeInfo) -> str:
    word = "true" if info.recoverable else "false"
    return f"{word} (it depends)" if info.note_on_recoverable else word


def _as_json(info: CodeInfo) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(info)
    fields["details"] = {
        detail.key: {"meaning": detail.meaning, "values": dict(detail.values)} for detail in info.details
    }
    return fields


def _lines(info: CodeInfo) -> list[tuple[str, str]]:
    lines = [
        ("code", info.code.value),
        ("scope", info.scope.value),
        ("source", _source(info) or "-"),
        ("message", info.message),
        (
            "recoverable",
            " ".join(("true" if info.recoverable else "false", info.note_on_recoverable)).strip(),
        ),
        ("when", info.when),
        ("cause", info.cause),
        ("remedy", info.remedy),
        ("follows", info.follows),
    ]
    for detail in info.details:
        lines.append((f"details.{detail.key}", detail.meaning))
        lines += [(f"details.{detail.key}={value}", meaning) for value, meaning in detail.values]
    return lines
