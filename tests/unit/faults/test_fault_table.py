"""The reviewed table and the injections name the same faults, and what differs is said."""

from __future__ import annotations

import pytest

from voicethere.cli.faults.expected import Expected, expectations
from voicethere.cli.faults.matrix import INJECTIONS, chosen
from voicethere.cli.faults.observed import Observed, differences
from voicethere.errors import SESSION_ERROR_CODES, CrashKind
from voicethere.wire.session_api import FailureCode


def test_every_fault_has_an_expectation_and_an_injection() -> None:
    assert set(expectations()) == set(INJECTIONS)


@pytest.mark.parametrize(("name", "expected"), expectations().items(), ids=lambda value: str(value)[:40])
def test_the_table_speaks_of_what_there_is(name: str, expected: Expected) -> None:
    assert expected.modes
    for code in [*(shown.rstrip("~") for shown in expected.client), *expected.rows]:
        assert code in SESSION_ERROR_CODES
    ending = [shown for shown in expected.client if not shown.endswith("~")]
    assert len(ending) <= 1
    assert not ending or expected.client[-1] == ending[0], "nothing follows the error that ends a session"
    assert expected.crash_kind is None or CrashKind(expected.crash_kind)
    assert expected.failure is None or FailureCode(expected.failure)
    assert (expected.source is not None) is bool(expected.rows)


def test_what_differs_is_said() -> None:
    expected = expectations()["killed"]
    seen = Observed(
        client=["AGENT_CHILD_CRASHED"],
        rows=["AGENT_CHILD_CRASHED"],
        cli=["AGENT_CHILD_CRASHED"],
        source="agent",
        crash_kind="signal",
        heard="nothing",
        end_reason="agent_error",
    )
    assert differences(expected, "data", seen) == []
    assert differences(expected, "voice", seen) == ["heard: nothing, not crash message"]
    assert differences(expected, "data", Observed(problem="it broke")) == ["it broke"]


def test_a_name_that_is_no_faults_is_refused() -> None:
    with pytest.raises(ValueError, match="no such fault: nonsense"):
        chosen(["nonsense"])
    assert [mode for _, mode, _ in chosen(["killed"])] == ["voice", "data"]
