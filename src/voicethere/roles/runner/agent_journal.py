"""The log of one agent child: bounded, redacted, sampled where it floods; its end kept for a failure.

The child is not trusted: everything is cut again, whatever the SDK did. Times are the runner's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from voicethere.core.ports import Clock, OutputLine
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.runner.agent_events import LogLine
from voicethere.roles.runner.agent_rate import TokenBucket
from voicethere.wire.ipc import LOG_LEVELS, MAX_LOG_FIELDS_CHARS, MAX_LOG_MESSAGE_CHARS, Log

_BURST = 500
_PER_SECOND = 100
_KEPT = 20
_PREVIEW_CHARS = (MAX_LOG_FIELDS_CHARS - 192) // 2

Redact = Callable[[str], str]


class Journal:
    """Turns what the child logs and prints into `LogLine`s for `write`.

    At most 500 lines at once and 100 a second are written; how many were left out is a line of its own.
    """

    def __init__(self, *, write: Callable[[LogLine], None], clock: Clock, redact: Redact) -> None:
        self._write = write
        self._clock = clock
        self._redact = redact
        self._rate = TokenBucket(burst=_BURST, per_second=_PER_SECOND, now=clock.monotonic())
        self._left_out = 0
        self._last: deque[str] = deque(maxlen=_KEPT)

    def logged(self, log: Log, session_id: str | None) -> None:
        """A line of `agent_log`; `session_id` is checked by the caller."""
        level = log.level if log.level in LOG_LEVELS else "info"
        self._line(level, log.message, log.fields, session_id)

    def printed(self, line: OutputLine) -> None:
        """A line of standard output or error."""
        self._line("warn" if line.stream == "stderr" else "info", line.text, None, None)

    def remark(self, message: str) -> None:
        """A word of the runner's, for the agent's author."""
        self._line("warn", message, None, None)

    def close(self) -> None:
        """Say what was left out last."""
        self._tell_left_out()

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The newest 20, cut but not redacted: an error's record redacts them when it is made."""
        return tuple(self._last)

    def _line(self, level: str, message: str, fields: dict[str, Any] | None, session_id: str | None) -> None:
        if len(message) > MAX_LOG_MESSAGE_CHARS:
            message = message[: MAX_LOG_MESSAGE_CHARS - 1] + "…"
        self._last.append(f"{level}: {message}")
        if not self._rate.take(now=self._clock.monotonic()):
            self._left_out += 1
            return
        self._tell_left_out()
        self._write(
            LogLine(
                level=level,
                message=self._redact(message),
                time=self._now(),
                fields=None if fields is None else self._redacted(_bounded(fields)),
                session_id=session_id,
            )
        )

    def _tell_left_out(self) -> None:
        if self._left_out:
            words = f"{self._left_out} lines of this log were left out: more than {_PER_SECOND} a second"
            self._left_out = 0
            self._write(LogLine(level="warn", message=words, time=self._now()))

    def _now(self) -> str:
        return iso_from_epoch(self._clock.now())

    def _redacted(self, value: Any) -> Any:
        match value:
            case str():
                return self._redact(value)
            case list():
                return [self._redacted(item) for item in value]
            case dict():
                return {self._redact(name): self._named(name, item) for name, item in value.items()}
            case _:
                return value

    def _named(self, name: str, item: Any) -> Any:
        """A value may be secret because of its name (`password`): redact them as one text."""
        if isinstance(item, str):
            prefix = f"{name}="
            redacted = self._redact(prefix + item)
            return redacted[len(prefix) :] if redacted.startswith(prefix) else self._redact(item)
        return self._redacted(item)


def _bounded(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as plain JSON values within the limit, or a preview of them."""
    try:
        text = msgspec.json.encode(fields).decode()
        if len(text) <= MAX_LOG_FIELDS_CHARS:
            plain: dict[str, Any] = msgspec.json.decode(text)
            return plain
    except (TypeError, ValueError, RecursionError, UnicodeError):  # msgpack can say things that JSON cannot
        text = "(fields that JSON cannot hold)"
    return {"preview": text[:_PREVIEW_CHARS], "truncated": True}
