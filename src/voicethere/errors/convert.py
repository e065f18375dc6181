"""The one function that turns a cause into an error record; every process and task edge calls it.

It redacts first and bounds then, at once: nothing that it returns, and nothing that it keeps, is raw. It
does not know when an error is raised, nor who is told of it.
"""

from __future__ import annotations

import functools
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from voicethere.errors import tracebacks
from voicethere.errors.bounds import (
    DEFAULT_BOUNDS,
    Bounds,
    cut_end,
    cut_middle,
    fit_object,
    sanitise,
    truncate_context,
)
from voicethere.errors.causes import Cause, Crash, CrashKind, HandlerFailure
from voicethere.errors.codes import CATALOG, ErrorSource, SessionErrorCode
from voicethere.errors.records import ErrorRecord
from voicethere.errors.redact import Redactor
from voicethere.errors.times import iso_from_epoch

_SAYS_ERROR_MESSAGE = frozenset({SessionErrorCode.AGENT_HANDLER_FAILED, SessionErrorCode.AGENT_CHILD_CRASHED})
_LONGEST_ID = 256


class _Account:
    """What a cause has to say, still raw; never leaves this module."""

    __slots__ = ("details", "log_lines", "message", "stack", "words")

    def __init__(self, message: str) -> None:
        self.message = message
        self.words = message
        """What the stack ends with: the exception's type and words."""
        self.stack: str | None = None
        """The traceback in front of `words`; None where there is none."""
        self.details: dict[str, Any] = {}
        self.log_lines: Sequence[str] = ()


def make_record(
    cause: Cause,
    *,
    code: SessionErrorCode,
    error_id: str,
    session_id: str,
    project_id: str,
    build_id: str | None,
    occurred_at: float,
    redactor: Redactor | None = None,
    bounds: Bounds = DEFAULT_BOUNDS,
    error_message: str | None = None,
    customer_context: dict[str, Any] | None = None,
    recoverable: bool | None = None,
    source: ErrorSource | None = None,
    details: Mapping[str, Any] | None = None,
) -> ErrorRecord:
    """The record of one error, redacted and bounded. Never raises, whatever the cause is.

    Args:
        cause: an exception, a hook's failure, the way a child ended, or the operator's message.
        error_id: minted once by the caller; the row's id for good.
        occurred_at: seconds since the epoch.
        redactor: one that knows the project's secret values; by default one that knows none.
        error_message: the project's setting; what the client is told for `AGENT_*` codes.
        customer_context: as the client gave it; the record holds the redacted one.
        recoverable, source: the catalog's, where not given. A code that the catalog gives no source (it is
            never stored) counts as the runner's.
        details: more for the row's `details`; what the cause itself says wins.

    Example:
        >>> record = make_record(error, code=SessionErrorCode.RUNNER_INTERNAL, error_id=new_id(), ...)
        >>> record.message
        'RuntimeError: the voice is gone'
    """
    info = CATALOG[code]
    source = source or info.source or ErrorSource.RUNNER
    recoverable = info.recoverable if recoverable is None else recoverable
    try:
        redactor = redactor if redactor is not None else default_redactor()
        account = _account_of(cause)
        said = (error_message or "").strip() if code in _SAYS_ERROR_MESSAGE else ""
        message = _message(account.message or info.when, redactor, bounds)
        same = account.message and account.words == account.message
        words = message if same else _message(account.words, redactor, bounds)
        return ErrorRecord(
            id=_id(error_id),
            session_id=_id(session_id),
            project_id=_id(project_id),
            build_id=_id(build_id) if build_id is not None else None,
            source=source,
            code=info.code,
            message=message,
            client_message=_message(said or info.message, redactor, bounds),
            stack=_stack(account, words, redactor, bounds),
            recoverable=recoverable,
            customer_context=_context(customer_context, redactor, bounds),
            occurred_at=_wire_time(occurred_at),
            details=_details(account, details, redactor, bounds),
        )
    except Exception as problem:  # no room left on the stack or in memory: say the little that needs neither
        return ErrorRecord(
            id=error_id,
            session_id=session_id,
            project_id=project_id,
            build_id=build_id,
            source=source,
            code=info.code,
            message=f"an error that could not be described ({type(problem).__name__} while describing it)",
            client_message=info.message,
            stack=None,
            recoverable=recoverable,
            customer_context=None,
            occurred_at=_wire_time(occurred_at),
            details={},
        )


@functools.cache
def default_redactor() -> Redactor:
    """The redactor that knows no project's secrets; made when it is first needed."""
    return Redactor()


# ------------------------------------------------------------------ what a cause says


def _account_of(cause: Cause) -> _Account:
    try:
        if isinstance(cause, HandlerFailure):
            return _of_handler(cause)
        if isinstance(cause, Crash):
            return _of_crash(cause)
        if isinstance(cause, BaseException):
            return _of_exception(cause)
        return _Account(str(cause))
    except BaseException as error:  # whatever is wrong with the cause, there is an error to tell of
        return _Account(f"an error that cannot be shown ({type(error).__name__} while reading it)")


def _of_exception(error: BaseException) -> _Account:
    account = _Account(tracebacks.in_words(error))
    account.stack = tracebacks.stack_without_words(error, account.words)
    account.details["exception_type"] = tracebacks.type_name(error)
    return account


def _of_handler(failure: HandlerFailure) -> _Account:
    account = _Account(failure.message.strip())
    account.stack = _before_words(failure.stack, account.words)
    account.log_lines = failure.last_log_lines
    account.details.update(crash_kind=CrashKind.RAISED.value, hook=failure.hook)
    _tell_type(account)
    return account


def crash_words(crash: Crash) -> str:
    """What became of the agent's process, in a plain sentence; not redacted."""
    sentence, more = _crash_sentence(crash), crash.message.strip()
    return f"{sentence}: {more}" if more else sentence


def _of_crash(crash: Crash) -> _Account:
    account = _Account(crash_words(crash))
    account.words = crash.message.strip() or account.words
    if crash.stack is not None:
        account.stack = _before_words(crash.stack, account.words)
    account.log_lines = crash.last_log_lines
    account.details["crash_kind"] = crash.kind.value
    if crash.exit_status is not None:
        account.details["exit_status"] = crash.exit_status
    if crash.signal is not None:
        account.details["signal"] = signal_name(crash.signal)
    if crash.kind in (CrashKind.LOAD_FAILURE, CrashKind.RAISED):
        _tell_type(account)
    return account


def _crash_sentence(crash: Crash) -> str:
    match crash.kind:
        case CrashKind.SIGNAL:
            if crash.signal is None:
                return "the agent's process was killed by a signal"
            name = signal_name(crash.signal)
            known = f" ({name})" if name != str(crash.signal) else ""
            return f"the agent's process was killed by signal {crash.signal}{known}"
        case CrashKind.EXITED:
            if crash.exit_status is None:
                return "the agent's process exited"
            return f"the agent's process exited with status {crash.exit_status}"
        case CrashKind.OUT_OF_MEMORY:
            return "the agent's process ran out of memory"
        case CrashKind.UNRESPONSIVE:
            return "the agent's process stopped answering"
        case CrashKind.LOAD_FAILURE:
            return "the bundle could not be loaded"
        case CrashKind.RAISED:
            return "the agent's code raised"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; the number itself where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _before_words(stack: str, words: str) -> str:
    stack = stack.rstrip()
    if words and stack.endswith(words):
        return stack[: -len(words)]
    return stack + "\n" if stack else ""


def _tell_type(account: _Account) -> None:
    """The exception's type, where the words begin with one."""
    found = re.match(r"[A-Za-z_][A-Za-z0-9_.]{0,199}(?=:|\Z)", account.words)
    if found is not None:
        account.details["exception_type"] = found.group()


# ------------------------------------------------------------------ redacted, then bounded


def _message(raw: str, redactor: Redactor, bounds: Bounds) -> str:
    redacted = redactor.text(raw, limit=2 * bounds.message_chars + 256)
    return cut_end(sanitise(redacted), bounds.message_chars)


def _stack(account: _Account, words: str, redactor: Redactor, bounds: Bounds) -> str | None:
    """The traceback and, behind it, `words`, which are redacted and bounded already."""
    if account.stack is None:
        return None
    room = bounds.stack_bytes - len(words.encode())
    if room < 0:
        return cut_middle(words, bounds.stack_bytes)
    trace = sanitise(redactor.text(account.stack, limit=bounds.stack_bytes + 256))
    return cut_middle(trace, room) + words


def _context(context: Any, redactor: Redactor, bounds: Bounds) -> dict[str, Any] | None:
    return None if context is None else truncate_context(redactor.value(context), bounds)


def _details(
    account: _Account, more: Mapping[str, Any] | None, redactor: Redactor, bounds: Bounds
) -> dict[str, Any]:
    redacted = {key: redactor.value(item) for key, item in account.details.items()}
    if account.log_lines:
        redacted["last_log_lines"] = _log_lines(account.log_lines, redactor, bounds)
    extra = _object(redactor.value(more)) if more is not None else {}
    return fit_object(
        redacted | {key: item for key, item in extra.items() if key not in redacted},
        max_bytes=bounds.details_bytes,
        max_depth=bounds.details_depth,
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"details": value}


def _log_lines(lines: Sequence[str], redactor: Redactor, bounds: Bounds) -> list[str]:
    """The last lines. They are redacted as one text first: a secret may go over several of them."""
    whole = redactor.text("\n".join(str(line) for line in lines[-4 * bounds.log_lines :]))
    shown = [redactor.text(line) for line in whole.splitlines()]
    return [cut_end(sanitise(line), bounds.log_line_chars) for line in shown[-bounds.log_lines :]]


def _id(text: str) -> str:
    return cut_end(sanitise(str(text)), _LONGEST_ID)


def _wire_time(seconds: float) -> str:
    try:
        return iso_from_epoch(seconds)
    except (ValueError, OverflowError, OSError):
        return iso_from_epoch(0)
