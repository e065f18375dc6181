"""From a cause to a record: what each part says, and that no cause whatever makes it raise."""

from __future__ import annotations

import math
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicethere.errors import (
    CATALOG,
    Bounds,
    Cause,
    Crash,
    CrashKind,
    ErrorRecord,
    ErrorSource,
    HandlerFailure,
    Redactor,
    SessionErrorCode,
    fit_envelope,
    make_record,
)

CODE = SessionErrorCode


def record_of(cause: Cause, code: SessionErrorCode = CODE.RUNNER_INTERNAL, **options: Any) -> ErrorRecord:
    given_options: dict[str, Any] = {
        "error_id": "e1",
        "session_id": "s1",
        "project_id": "p1",
        "build_id": "b1",
        "occurred_at": 1_781_870_400.0,
    } | options
    return make_record(cause, code=code, **given_options)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


# ------------------------------------------------------------------ what it says


def test_an_exception() -> None:
    record = record_of(raised(RuntimeError("the voice is gone")))
    assert record.message == "RuntimeError: the voice is gone"
    assert record.client_message == CATALOG[CODE.RUNNER_INTERNAL].message
    assert record.stack is not None
    assert record.stack.startswith("Traceback (most recent call last):\n")
    assert "test_make_record.py" in record.stack
    assert record.stack.endswith("\nRuntimeError: the voice is gone")
    assert record.details == {"exception_type": "RuntimeError"}
    assert (record.id, record.session_id, record.project_id, record.build_id) == ("e1", "s1", "p1", "b1")
    assert record.occurred_at == "2026-06-19T12:00:00.000Z"
    assert record.source is ErrorSource.RUNNER
    assert record.recoverable is False
    assert record.customer_context is None


def test_the_type_has_its_module() -> None:
    record = record_of(raised(msgspec.ValidationError("no")))
    assert record.message == "msgspec.ValidationError: no"
    assert record.details["exception_type"] == "msgspec.ValidationError"


def test_causes_groups_and_notes_are_in_the_stack_and_the_words_end_it() -> None:
    error = ValueError("outer")
    error.__cause__ = raised(KeyError("inner"))
    error.add_note("a note")
    stack = record_of(raised(error)).stack
    assert stack is not None
    assert "KeyError: 'inner'" in stack
    assert "direct cause" in stack
    assert "a note" in stack
    assert stack.endswith("\nValueError: outer")
    group = record_of(raised(ExceptionGroup("many", [ValueError("one"), OSError("two")]))).stack
    assert group is not None
    assert "ValueError: one" in group
    assert group.endswith("\nExceptionGroup: many (2 sub-exceptions)")


def test_a_failed_handler() -> None:
    words = "RuntimeError: Authorization: Bearer abc123 was refused"
    record = record_of(
        HandlerFailure(
            hook="on_user_speech_final",
            message=words,
            stack=f'Traceback (most recent call last):\n  File "agent.py", line 7, in on_speech\n{words}\n',
            last_log_lines=("hello", "token=abc123 sent"),
        ),
        CODE.AGENT_HANDLER_FAILED,
        error_message="Sorry, try again.",
        customer_context={"userId": "u_123", "password": "x"},
    )
    assert record.message == "RuntimeError: Authorization: Bearer [redacted] was refused"
    assert record.client_message == "Sorry, try again."
    assert record.stack == (
        'Traceback (most recent call last):\n  File "agent.py", line 7, in on_speech\n'
        "RuntimeError: Authorization: Bearer [redacted] was refused"
    )
    assert record.details == {
        "crash_kind": "raised",
        "hook": "on_user_speech_final",
        "exception_type": "RuntimeError",
        "last_log_lines": ["hello", "token=[redacted] sent"],
    }
    assert record.customer_context == {"userId": "u_123", "password": "[redacted]"}
    assert record.source is ErrorSource.AGENT
    envelope = record.envelope()
    assert envelope.message == "Sorry, try again."
    assert envelope.stack == record.stack
    assert envelope.customer_context == record.customer_context


CRASHES = [
    (Crash(kind=CrashKind.SIGNAL, signal=9), "the agent's process was killed by signal 9 (SIGKILL)"),
    (Crash(kind=CrashKind.SIGNAL, signal=4711), "the agent's process was killed by signal 4711"),
    (Crash(kind=CrashKind.SIGNAL), "the agent's process was killed by a signal"),
    (Crash(kind=CrashKind.EXITED, exit_status=3), "the agent's process exited with status 3"),
    (Crash(kind=CrashKind.EXITED, exit_status=0), "the agent's process exited with status 0"),
    (Crash(kind=CrashKind.EXITED), "the agent's process exited"),
    (Crash(kind=CrashKind.OUT_OF_MEMORY, signal=9), "the agent's process ran out of memory"),
    (Crash(kind=CrashKind.UNRESPONSIVE), "the agent's process stopped answering"),
    (
        Crash(kind=CrashKind.UNRESPONSIVE, message="no answer to a ping for 5 s"),
        "the agent's process stopped answering: no answer to a ping for 5 s",
    ),
    (
        Crash(kind=CrashKind.LOAD_FAILURE, message="ImportError: No module named 'x'"),
        "the bundle could not be loaded: ImportError: No module named 'x'",
    ),
    (Crash(kind=CrashKind.RAISED, message="ValueError: x"), "the agent's code raised: ValueError: x"),
]


@pytest.mark.parametrize(("crash", "words"), CRASHES)
def test_a_crash_is_a_plain_sentence(crash: Crash, words: str) -> None:
    record = record_of(crash, CODE.AGENT_CHILD_CRASHED)
    assert record.message == words
    assert record.details["crash_kind"] == crash.kind.value
    assert record.details.get("exit_status") == crash.exit_status
    assert record.stack is None


def test_a_signal_has_its_name_in_the_details() -> None:
    assert record_of(Crash(kind=CrashKind.SIGNAL, signal=11)).details["signal"] == "SIGSEGV"
    assert record_of(Crash(kind=CrashKind.SIGNAL, signal=4711)).details["signal"] == "4711"


def test_a_load_failure_has_a_stack_that_ends_with_its_words() -> None:
    crash = Crash(
        kind=CrashKind.LOAD_FAILURE, message="ImportError: no x", stack="Traceback\n  File agent.py"
    )
    record = record_of(crash)
    assert record.stack == "Traceback\n  File agent.py\nImportError: no x"
    assert record.details["exception_type"] == "ImportError"


def test_a_plain_sentence() -> None:
    record = record_of("no runner is there, key vth_abcdefgh1234 refused", CODE.PROVISIONING_FAILED)
    assert record.message == "no runner is there, key [redacted] refused"
    assert record.stack is None
    assert record.details == {}
    assert record.source is ErrorSource.PROVISIONING


@pytest.mark.parametrize("code", CODE)
def test_the_project_speaks_for_agent_codes_only(code: SessionErrorCode) -> None:
    said = record_of("x", code, error_message="Our words.").client_message
    if code in (CODE.AGENT_HANDLER_FAILED, CODE.AGENT_CHILD_CRASHED):
        assert said == "Our words."
    else:
        assert said == CATALOG[code].message


@pytest.mark.parametrize("nothing", [None, "", "  \n"])
def test_without_words_of_the_project_the_catalog_speaks(nothing: str | None) -> None:
    record = record_of("x", CODE.AGENT_CHILD_CRASHED, error_message=nothing)
    assert record.client_message == CATALOG[CODE.AGENT_CHILD_CRASHED].message


@pytest.mark.parametrize("code", CODE)
def test_the_catalog_gives_source_and_recoverable_and_the_caller_wins(code: SessionErrorCode) -> None:
    record = record_of("x", code)
    assert record.recoverable is CATALOG[code].recoverable
    assert record.source is (CATALOG[code].source or ErrorSource.RUNNER)
    other = record_of("x", code, recoverable=not record.recoverable, source=ErrorSource.PROVISIONING)
    assert other.recoverable is not record.recoverable
    assert other.source is ErrorSource.PROVISIONING


def test_details_of_the_caller_are_redacted_and_lose_against_the_cause() -> None:
    record = record_of(
        Crash(kind=CrashKind.EXITED, exit_status=3),
        details={"failure_code": "TIMEOUT", "password": "x", "exit_status": 7, "n": "y" * 50_000},
    )
    assert record.details["failure_code"] == "TIMEOUT"
    assert record.details["password"] == "[redacted]"
    assert record.details["exit_status"] == 3
    assert len(msgspec.json.encode(record.details)) <= 16 * 1024
    assert record.details["n"].endswith("…")


def test_a_secret_over_several_log_lines_is_gone() -> None:
    lines = (
        "start",
        "-----BEGIN PRIVATE KEY-----",
        "MIIEowIBAAKCAQEA",
        "abcd",
        "-----END PRIVATE KEY-----",
        "end",
    )
    record = record_of(Crash(kind=CrashKind.SIGNAL, signal=9, last_log_lines=lines))
    assert record.details["last_log_lines"] == ["start", "[redacted]", "end"]


def test_only_the_last_log_lines_are_kept_and_each_is_bounded() -> None:
    lines = tuple(f"line {n} " + "x" * 900 for n in range(100))
    shown = record_of(Crash(kind=CrashKind.EXITED, last_log_lines=lines)).details["last_log_lines"]
    assert len(shown) == 20
    assert shown[-1].startswith("line 99 ")
    assert all(len(line) == 500 for line in shown)


def test_everything_is_bounded_and_the_ends_survive() -> None:
    bounds = Bounds(message_chars=100, stack_bytes=1_000)
    words = "ValueError: " + "w" * 5_000
    record = record_of(
        HandlerFailure(hook="h", message=words, stack="Traceback first\n" + "frame\n" * 5_000 + words),
        bounds=bounds,
    )
    assert len(record.message) == 100
    assert record.message.endswith("…")
    assert record.stack is not None
    assert len(record.stack.encode()) <= 1_000
    assert record.stack.startswith("Traceback first\n")
    assert "bytes left out" in record.stack
    assert record.stack.endswith(record.message)


def test_the_redactor_knows_the_projects_secrets() -> None:
    record = record_of(raised(ValueError("got sesame-open-7")), redactor=Redactor(["sesame-open-7"]))
    assert record.message == "ValueError: got [redacted]"
    assert "sesame" not in repr(record)


# ------------------------------------------------------------------ whatever the cause is


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no words")

    __repr__ = __str__


class Liar(Exception):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("who am I?")


class NotText(Exception):
    def __str__(self) -> Any:
        return 7


def endless() -> BaseException:
    def deeper(n: int) -> int:
        return deeper(n + 1) + 1

    try:
        deeper(0)
    except RecursionError as error:
        return error
    raise AssertionError


def chained(length: int) -> BaseException:
    error: BaseException = ValueError("first")
    for n in range(length):
        later = ValueError(f"link {n}")
        later.__cause__ = error
        error = later
    return error


def circular() -> BaseException:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return raised(one)


def grouped(depth: int) -> BaseException:
    error: Exception = ValueError("core")
    for n in range(depth):
        error = ExceptionGroup(f"level {n}", [error, ValueError("beside")])
    return error


def hostile_notes() -> BaseException:
    error = ValueError("noted")
    error.__notes__ = [Unprintable(), 7, "\ud800"]  # type: ignore[list-item]
    return raised(error)


HOSTILE: dict[str, Any] = {
    "unprintable": raised(Unprintable("x")),
    "lies about its class": Liar("x"),
    "str is not text": raised(NotText()),
    "no words": raised(ValueError()),
    "surrogates and controls": raised(ValueError("a\ud800b\x00c\x1b[31m")),
    "huge words": raised(ValueError("x" * 3_000_000)),
    "huge arguments": raised(ValueError(["x" * 1_000] * 1_000, {"a": 1})),
    "endless recursion": endless(),
    "a long chain": chained(3_000),
    "a circle of causes": circular(),
    "nested groups": grouped(60),
    "hostile notes": hostile_notes(),
    "keyboard": raised(KeyboardInterrupt()),
    "syntax": raised(SyntaxError("bad", ("f.py", 1, 5, "x = \ud800", 1, 6))),
    "key error": raised(KeyError("key")),
    "not a cause": 7,
    "none": None,
    "a huge stack": HandlerFailure(hook="\ud800" * 9, message="", stack="a\n" * 2_000_000),
    "odd fields": Crash(kind=CrashKind.SIGNAL, signal=-1, exit_status=2**70, message="\x00", stack=""),
    "hostile log lines": Crash(kind=CrashKind.EXITED, last_log_lines=("\ud800", "x" * 500_000, "")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_cause_makes_it_raise(name: str) -> None:
    record = record_of(HOSTILE[name], CODE.AGENT_CHILD_CRASHED)
    assert record.message
    assert len(record.message) <= 2_048
    assert record.stack is None or len(record.stack.encode()) <= 32 * 1024
    assert len(msgspec.json.encode(fit_envelope(record.envelope(), None))) <= 60 * 1024
    assert msgspec.json.decode(msgspec.json.encode(record), type=ErrorRecord) == record


def test_even_at_the_end_of_the_stack() -> None:
    made: list[ErrorRecord] = []

    def deeper() -> None:
        try:
            deeper()
        except RecursionError as error:
            if not made:
                try:
                    made.append(record_of(error))
                except RecursionError:
                    raise error from None  # too deep to call anything at all: let a caller try
            raise

    with pytest.raises(RecursionError):
        deeper()
    assert "RecursionError" in made[0].message
    assert (made[0].id, made[0].session_id, made[0].code) == ("e1", "s1", CODE.RUNNER_INTERNAL)


@pytest.mark.parametrize("moment", [math.nan, math.inf, -1e300, 1e18])
def test_no_time_makes_it_raise(moment: float) -> None:
    assert record_of("x", occurred_at=moment).occurred_at == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    "context", [{"a": {1, 2}}, {"a": object()}, ["a"], "text", {"a": {"b": b"\xff"}}, {1: 2}]
)
def test_no_context_makes_it_raise(context: Any) -> None:
    record = record_of("x", customer_context=context, details={"d": context})
    assert isinstance(record.customer_context, dict)
    assert msgspec.json.decode(msgspec.json.encode(record), type=ErrorRecord) == record


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.characters(exclude_categories=[]), max_size=300),
    st.text(st.characters(exclude_categories=[]), max_size=300),
    st.sampled_from(CODE),
    st.integers(1, 400),
    st.floats(),
)
def test_any_text_gives_a_record_within_its_bounds(
    words: str, stack: str, code: SessionErrorCode, times: int, moment: float
) -> None:
    bounds = Bounds(message_chars=64, stack_bytes=900, context_bytes=300, details_bytes=400)
    record = record_of(
        HandlerFailure(hook=words, message=words * times, stack=stack * times, last_log_lines=(stack, words)),
        code,
        error_id=words,
        session_id=words,
        occurred_at=moment,
        error_message=words,
        customer_context={words: stack * times},
        details={stack: [words] * times},
        bounds=bounds,
    )
    assert len(record.message) <= 64
    assert len(record.client_message) <= 64
    assert record.stack is not None
    assert len(record.stack.encode()) <= 900
    assert len(msgspec.json.encode(record.customer_context)) <= 300
    assert len(msgspec.json.encode(record.details)) <= 400
    assert msgspec.json.decode(msgspec.json.encode(record), type=ErrorRecord) == record


def test_no_copy_of_the_cause_is_kept() -> None:
    error = raised(ValueError("x"))
    before = sys.getrefcount(error)
    record = record_of(error)
    assert record.message == "ValueError: x"
    assert sys.getrefcount(error) == before
