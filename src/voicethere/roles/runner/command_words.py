"""What a recognizer cannot know of an agent's `commands`, in words for whoever wrote them.

Asks where the recognizer can tell (`core.ports.HintCheck`). Decides nothing: a command that is never
recognized is worth a remark, and neither a session nor a build.
"""

from __future__ import annotations

from collections.abc import Sequence

from voicethere.core.ports import HintCheck, Recognizer, UnknownWords

MAX_NAMED = 20
MAX_BUILDS_REMEMBERED = 1000


async def command_remarks(recognizer: Recognizer | None, commands: Sequence[str]) -> list[str]:
    """A line about each command that is not simply known, the hopeless ones first; at most `MAX_NAMED`.

    Empty where all is well, or the recognizer cannot tell. Where it fails, the line says so.
    """
    if recognizer is None or not commands or not isinstance(recognizer, HintCheck):
        return []
    try:
        problems = await recognizer.unknown_words(commands)
    except Exception as error:  # whatever it is, only a remark is lost
        return [_unchecked(error)]
    lines = [
        f"the command {problem.hint!r} "
        f"{'may be misheard' if problem.recognizable else 'is never recognized'}: {problem.reason}"
        for problem in sorted(problems, key=lambda problem: problem.recognizable)
    ]
    return _at_most(lines, "commands like these")


class CommandWords:
    """One per runner: says of each build, once, which of its commands `recognizer` never recognizes."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._told: dict[tuple[str, int], None] = {}

    async def remark(self, build_id: str, commands: Sequence[str]) -> str | None:
        """One line for the agent's log; None where all is well, or it was said (or is being looked up).

        Where the recognizer fails, the line says so, and the next session's agent is looked at again.
        """
        key = (build_id, hash(tuple(commands)))
        if not commands or key in self._told or not isinstance(self._recognizer, HintCheck):
            return None
        self._told[key] = None
        if len(self._told) > MAX_BUILDS_REMEMBERED:
            del self._told[next(iter(self._told))]
        try:
            problems = await self._recognizer.unknown_words(commands)
        except BaseException as error:
            self._told.pop(key, None)
            if not isinstance(error, Exception):
                raise
            return _unchecked(error)
        return _hopeless([problem for problem in problems if not problem.recognizable], len(commands))


def _hopeless(problems: Sequence[UnknownWords], of: int) -> str | None:
    if not problems:
        return None
    named = _at_most([f"{problem.hint!r} ({problem.reason})" for problem in problems], "more")
    return f"{len(problems)} of the agent's {of} commands are never recognized here: {'; '.join(named)}"


def _at_most(lines: list[str], others: str) -> list[str]:
    rest = len(lines) - MAX_NAMED
    return lines if rest <= 0 else [*lines[:MAX_NAMED], f"and {rest} {others}"]


def _unchecked(error: Exception) -> str:
    return f"whether the agent's commands can be recognized could not be looked up: {str(error)[:500]}"
