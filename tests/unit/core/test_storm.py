"""Which errors of a storm are stored, which are counted, and what is never suppressed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicethere.core.storm import Decision, StormGate, StormRules
from voicethere.errors.codes import SessionErrorCode
from voicethere.testing.queue import sample_error
from voicethere.wire.queue import ErrorItem, SessionEndedItem, SuppressedItem

RULES = StormRules(
    burst=5, per_second=2.0, lasting_burst=20, lasting_per_second=10.0, max_projects=3, max_counts=4
)


def recoverable(project_id: str = "a", **changes: Any) -> ErrorItem:
    return sample_error("s", project_id, recoverable=True, **changes)


def offer(gate: StormGate, item: ErrorItem, now: float) -> Decision:
    decision = gate.decide(item, now)
    if decision is Decision.SUPPRESS:
        gate.count(item, now)
    return decision


def test_a_burst_is_stored_and_what_comes_behind_it_is_counted() -> None:
    gate = StormGate(RULES)
    decisions = [offer(gate, recoverable(), 0.0) for _ in range(8)]
    assert decisions == [Decision.STORE] * 5 + [Decision.SUPPRESS] * 3
    (found,) = gate.take_counts()
    assert (found.project_id, found.code, found.count) == ("a", SessionErrorCode.AGENT_HANDLER_FAILED, 3)
    assert gate.take_counts() == []


def test_a_budget_grows_again_with_time_but_not_past_its_burst() -> None:
    gate = StormGate(RULES)
    for _ in range(8):
        offer(gate, recoverable(), 0.0)
    assert [offer(gate, recoverable(), 1.0) for _ in range(3)] == [Decision.STORE] * 2 + [Decision.SUPPRESS]
    later = [offer(gate, recoverable(), 1000.0) for _ in range(6)]
    assert later == [Decision.STORE] * 5 + [Decision.SUPPRESS]


def test_one_projects_storm_takes_nothing_from_another() -> None:
    gate = StormGate(RULES)
    for _ in range(500):
        offer(gate, recoverable("a"), 0.0)
    assert offer(gate, recoverable("b"), 0.0) is Decision.STORE


def test_what_ended_a_session_and_the_end_are_never_suppressed() -> None:
    gate = StormGate(RULES)
    end = SessionEndedItem(
        session_id="s",
        project_id="a",
        end_reason="agent_failed",
        failed=True,
        ended_at="2026-06-19T12:00:00.000Z",
    )
    decisions = [gate.decide(item, 0.0) for _ in range(20) for item in (sample_error("s", "a"), end)]
    assert decisions == [Decision.STORE] * 20 + [Decision.STORE_AND_NOTE] * 20
    # Nor do they use up what others may have.
    assert gate.decide(recoverable(), 0.0) is Decision.STORE
    assert gate.due_in(0.0) is None


def test_a_summary_itself_passes() -> None:
    item = SuppressedItem(
        id="1",
        project_id="a",
        code=SessionErrorCode.AGENT_HANDLER_FAILED,
        count=3,
        first_at="2026-06-19T12:00:00.000Z",
        last_at="2026-06-19T12:00:00.000Z",
    )
    assert StormGate(RULES).decide(item, 0.0) is Decision.STORE


def test_counts_are_kept_apart_by_code_and_span_their_time() -> None:
    gate = StormGate(RULES)
    for _ in range(5):
        offer(gate, recoverable(), 0.0)
    for second in (5, 3, 9):
        offer(gate, recoverable(occurred_at=f"2026-06-19T12:00:0{second}.000Z"), 0.0)
    offer(gate, recoverable(code=SessionErrorCode.IDLE_TIMEOUT_CALLBACK_FAILED), 0.0)
    first, second = gate.take_counts()
    assert (first.count, first.first_at, first.last_at) == (
        3,
        "2026-06-19T12:00:03.000Z",
        "2026-06-19T12:00:09.000Z",
    )
    assert (second.code, second.count) == (SessionErrorCode.IDLE_TIMEOUT_CALLBACK_FAILED, 1)


def test_counts_are_due_a_while_after_the_first_of_them() -> None:
    gate = StormGate(RULES)
    for moment in (10.0, 11.0):
        for _ in range(10):
            offer(gate, recoverable(), moment)
    assert gate.due_in(12.0) == pytest.approx(3.0)
    assert gate.due_in(99.0) == 0.0
    gate.take_counts()
    assert gate.due_in(99.0) is None


def test_what_there_is_no_room_to_count_is_stored() -> None:
    gate = StormGate(StormRules(burst=1, per_second=0.001, max_projects=100, max_counts=4))
    for number in range(10):
        assert offer(gate, recoverable(f"p{number}"), 0.0) is Decision.STORE
    second = [offer(gate, recoverable(f"p{number}"), 0.0) for number in range(10)]
    assert second == [Decision.SUPPRESS] * 4 + [Decision.STORE_AND_NOTE] * 6
    assert sum(found.count for found in gate.take_counts()) == 4


def test_what_could_not_be_queued_costs_nothing() -> None:
    gate = StormGate(RULES)
    item = recoverable()
    for _ in range(50):
        assert gate.decide(item, 0.0) is Decision.STORE
        gate.give_back(item)


def test_rules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="per_second must be more than 0, not -1"):
        StormRules(per_second=-1.0)


offers = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.booleans(), st.floats(min_value=0.0, max_value=2.0))
)


@given(offers)
def test_whatever_comes_stored_and_counted_make_all_and_nobody_is_over_budget(
    sequence: list[tuple[str, bool, float]],
) -> None:
    """With as many projects as are remembered, and more: every item is accounted for exactly once."""
    gate = StormGate(StormRules(burst=5, per_second=2.0, max_projects=8, max_counts=50))
    now = 0.0
    stored: dict[str, int] = {}
    suppressible = 0
    for project_id, is_recoverable, passed in sequence:
        now += passed
        item = sample_error("s", project_id, recoverable=is_recoverable)
        decision = offer(gate, item, now)
        if not is_recoverable:
            assert decision is not Decision.SUPPRESS
            continue
        suppressible += 1
        if decision is Decision.STORE:
            stored[project_id] = stored.get(project_id, 0) + 1
    assert sum(stored.values()) + sum(found.count for found in gate.take_counts()) == suppressible
    assert all(count <= 5 + 2.0 * now + 1e-6 for count in stored.values())
