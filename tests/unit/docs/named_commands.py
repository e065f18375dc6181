"""Finds `voicethere …` commands in prose and in blocks, and says what of one does not exist."""

from __future__ import annotations

import re
import shlex

import click

from voicethere.cli.main import cli

_IN_BACKTICKS = re.compile(r"(?<!`)`voicethere ([^`\n]+)`")
_AT_A_PROMPT = re.compile(r"^(?:\$ |)voicethere ([^\n#]+)", re.MULTILINE)


def named_commands(text: str) -> list[str]:
    """What follows `voicethere` wherever a text names a command."""
    return [found.strip() for found in (*_IN_BACKTICKS.findall(text), *_AT_A_PROMPT.findall(text))]


def problem_of(command: str) -> str | None:
    """What of this command does not exist; None where all of it does."""
    words = shlex.split(command.rstrip("…. "))
    found: click.Command = cli
    context = click.Context(cli)
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        following = found.get_command(context, name)
        if following is None:
            return f"there is no command {name!r} in `voicethere {command}`"
        found = following
    known = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h", "--version"}
    for word in words:
        if word.startswith("-") and word.partition("=")[0] not in known:
            return f"there is no option {word} in `voicethere {command}`"
    return None
