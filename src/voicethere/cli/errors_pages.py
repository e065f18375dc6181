"""The catalog as pages of the docs: Markdown, the same for the same catalog."""

from __future__ import annotations

from collections.abc import Mapping

from voicethere.errors import CATALOG, CodeInfo, ErrorScope

_NOTICE = "<!-- Written by `voicethere errors docs` from the catalog in the code: change it there. -->\n"
_SCOPES = {
    ErrorScope.REMOTE: "remote: the platform sends it to the client",
    ErrorScope.LOCAL: "local: made in the client, never sent",
}
_INDEX = """\
# Session errors

Every failure of a session has one of twelve codes. The application gets it in `on_session_error`, the
operator finds it with `voicethere projects errors list`, and `voicethere errors explain CODE` says what it
means.

`recoverable` is false on the one error that ends the session, and on no other.
"""


def pages() -> Mapping[str, str]:
    """File name → text: `index.md`, and a page for each code."""
    return {"index.md": _index(), **{f"{code.value}.md": _page(info) for code, info in CATALOG.items()}}


def _index() -> str:
    text = _NOTICE + "\n" + _INDEX
    for heading, scope in (
        ("Sent by the platform", ErrorScope.REMOTE),
        ("Found by the client", ErrorScope.LOCAL),
    ):
        text += f"\n## {heading}\n\n| code | stored as | when |\n| --- | --- | --- |\n"
        for info in CATALOG.values():
            if info.scope is scope:
                text += f"| [{info.code.value}]({info.code.value}.md) | {_source(info)} | {info.when} |\n"
    return text


def _page(info: CodeInfo) -> str:
    text = f"{_NOTICE}\n# {info.code.value}\n\n{info.when}\n\n"
    text += "| | |\n| --- | --- |\n"
    text += f"| message | {info.message} |\n"
    text += f"| scope | {_SCOPES[info.scope]} |\n"
    text += f"| stored as | {_source(info)} |\n"
    text += f"| recoverable | {_recoverable(info)} |\n"
    for heading, words in (
        ("Cause", info.cause),
        ("What to do", info.remedy),
        ("What the client sees", info.follows),
    ):
        text += f"\n## {heading}\n\n{words}\n"
    if info.details:
        text += _details(info)
    return text + "\n[All codes](index.md)\n"


def _details(info: CodeInfo) -> str:
    if info.source is None:
        return ""
    text = "\n## In the row's details\n\n| key | meaning |\n| --- | --- |\n"
    for detail in info.details:
        text += f"| `{detail.key}` | {detail.meaning} |\n"
    for detail in info.details:
        if detail.values:
            text += f"\n| `{detail.key}` | |\n| --- | --- |\n"
            text += "".join(f"| `{value}` | {meaning} |\n" for value, meaning in detail.values)
    return text


def _source(info: CodeInfo) -> str:
    return info.source.value if info.source is not None else "not stored"


def _recoverable(info: CodeInfo) -> str:
    word = "true" if info.recoverable else "false"
    return f"{word}. {info.note_on_recoverable}" if info.note_on_recoverable else word
