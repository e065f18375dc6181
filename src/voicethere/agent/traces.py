"""Exceptions as text for people: the agent's own files and lines, without the SDK's.

Files of the bundle are shown by their path inside it (`File "agent.py", line 7`).
"""

from __future__ import annotations

import itertools
import linecache
import os
import sys
import traceback
from typing import NamedTuple

from voicethere.agent.definition import AgentDefinitionError
from voicethere.wire.ipc import MAX_ERROR_MESSAGE_CHARS, MAX_STACK_CHARS

_SDK_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_IMPORT_MACHINERY = "<frozen importlib"
_MAX_SOURCES_READ_AHEAD = 32


class Described(NamedTuple):
    """`message` is `Type: words`; `stack` the whole traceback. Both bounded and valid Unicode."""

    message: str
    stack: str


class Describer:
    """Describes exceptions of the bundle in `bundle_dir`."""

    def __init__(self, bundle_dir: str) -> None:
        folders = {bundle_dir, os.path.abspath(bundle_dir), os.path.realpath(bundle_dir)}
        self._prefixes = sorted((folder.rstrip(os.sep) + os.sep for folder in folders), key=len, reverse=True)

    def describe(self, error: BaseException) -> Described:
        """Never raises, whatever the exception object does."""
        return Described(
            message=cut_in_the_middle(self._inside_bundle(_one_line(error)), MAX_ERROR_MESSAGE_CHARS),
            stack=cut_in_the_middle(self._inside_bundle(_stack(error)), MAX_STACK_CHARS),
        )

    def warm_up(self) -> None:
        """Read the sources that tracebacks quote, and describe an error: the first real one need not wait."""
        files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        ours = (file for file in files if isinstance(file, str) and file.startswith(tuple(self._prefixes)))
        for file in itertools.islice(ours, _MAX_SOURCES_READ_AHEAD):
            linecache.getlines(file)
        try:
            raise RuntimeError("warm-up")
        except RuntimeError as error:
            self.describe(error)

    def _inside_bundle(self, text: str) -> str:
        for prefix in self._prefixes:
            text = text.replace(prefix, "")
        return clean(text)


def clean(text: str) -> str:
    """The text with what is no Unicode (halves of surrogate pairs) written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def cut_in_the_middle(text: str, limit: int) -> str:
    """At most `limit` characters, both ends kept."""
    if len(text) <= limit:
        return text
    mark = f"\n… {len(text) - limit} characters left out …\n"
    head = (limit - len(mark)) // 2
    return text[:head] + mark + text[len(text) - (limit - len(mark) - head) :]


def _one_line(error: BaseException) -> str:
    name = type(error).__name__
    try:
        words = str(error)
    except Exception:
        words = "(its words cannot be read: __str__ raised)"
    text = f"{name}: {words}" if words else name
    if isinstance(error, BaseExceptionGroup) and error.exceptions:
        text = f"{text}: {_one_line(error.exceptions[0])}"
    return text


def _stack(error: BaseException) -> str:
    try:
        # Without looking lines up yet: only the sources of the frames that stay are read.
        told = traceback.TracebackException.from_exception(error, lookup_lines=False)
        # Where an author's mistake is found before their code runs, no frame says anything about it.
        _leave_out_our_frames(told, or_all=isinstance(error, (SyntaxError, AgentDefinitionError)))
        return "".join(told.format())
    except Exception:  # an exception object that breaks the formatter must not hide where it was raised
        return "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__


def _leave_out_our_frames(told: traceback.TracebackException, *, or_all: bool) -> None:
    """Unless only ours are there (then it is our mistake), or that is told to be no matter."""
    pending: list[traceback.TracebackException | None] = [told]
    while pending:
        one = pending.pop()
        if one is None:
            continue
        theirs = [frame for frame in one.stack if not _is_ours(frame.filename)]
        if theirs or or_all:
            one.stack[:] = theirs
        pending += [one.__cause__, one.__context__, *(one.exceptions or ())]


def _is_ours(filename: str) -> bool:
    return filename.startswith((_SDK_FOLDER, _IMPORT_MACHINERY))
