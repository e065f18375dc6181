"""The twelve codes, word for word as the seed lists them, and the package's public face."""

from __future__ import annotations

import subprocess
import sys

import pytest

import voicethere.errors as errors
from voicethere.errors import CATALOG, LOCAL_CODES, REMOTE_CODES, SESSION_ERROR_CODES, ErrorScope, ErrorSource

# The seed's own sentence: "Full enum (12 codes): …".
SEED = (
    "AGENT_HANDLER_FAILED, AGENT_CHILD_CRASHED, RUNNER_INTERNAL, SESSION_END_FAILED, "
    "IDLE_TIMEOUT_CALLBACK_FAILED, IDLE_TIMEOUT_CALLBACK_TIMED_OUT, SESSION_IDLE_TIMEOUT, "
    "PROVISIONING_FAILED, PROVISIONING_TIMEOUT, WEBRTC_CONNECTION_FAILED, "
    "WEBRTC_CONNECTION_CLOSED, WEBRTC_CONNECT_TIMEOUT"
)


def test_the_codes_are_the_seeds_in_its_order() -> None:
    assert SEED.split(", ") == list(SESSION_ERROR_CODES)
    assert [code.value for code in CATALOG] == list(SESSION_ERROR_CODES)


def test_the_first_seven_travel_and_the_rest_are_local() -> None:
    assert {code.value for code in REMOTE_CODES} == set(SESSION_ERROR_CODES[:7])
    assert {code.value for code in LOCAL_CODES} == set(SESSION_ERROR_CODES[7:])
    assert all((info.scope is ErrorScope.REMOTE) == (code in REMOTE_CODES) for code, info in CATALOG.items())


def test_sources_are_the_contracts() -> None:
    for code, info in CATALOG.items():
        if code.startswith(("AGENT_", "IDLE_TIMEOUT_CALLBACK_")):
            assert info.source is ErrorSource.AGENT
        elif code.startswith("PROVISIONING_"):
            assert info.source is ErrorSource.PROVISIONING
        elif code.startswith("WEBRTC_"):
            assert info.source is None
        else:
            assert info.source is ErrorSource.RUNNER


@pytest.mark.parametrize("code", CATALOG)
def test_every_code_tells_people_what_to_do(code: errors.SessionErrorCode) -> None:
    info = CATALOG[code]
    assert info.code is code
    for words in (info.message, info.when, info.cause, info.remedy):
        assert words.strip()
        assert words == words.strip()
        assert "  " not in words
        assert words.endswith((".", "!"))


PUBLIC = (
    "Bounds CATALOG Cause CodeInfo Crash CrashKind ENVELOPE_TYPE ErrorRecord ErrorScope ErrorSource "
    "HandlerFailure LOCAL_CODES REDACTED REMOTE_CODES Redactor SESSION_ERROR_CODES SessionErrorCode "
    "SessionErrorEnvelope context_problem crash_words fit_envelope iso iso_from_epoch make_record "
    "parse_iso truncate_context"
)


def test_the_public_surface() -> None:
    assert sorted(errors.__all__) == sorted(PUBLIC.split())
    assert all(hasattr(errors, name) for name in errors.__all__)


def test_importing_it_drags_nothing_in() -> None:
    program = (
        "import sys, msgspec; before = set(sys.modules); import voicethere.errors; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    foreign = {name for name in done.stdout.split() if not name.startswith("voicethere")}
    assert foreign <= {"signal", "traceback", "linecache", "tokenize", "binascii", "_signal"}
