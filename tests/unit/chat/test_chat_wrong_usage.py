"""Wrong usage of stores, logs and statistics is refused where it happens, and what may be left out may."""

from __future__ import annotations

from typing import Any

import pytest

from voicethere.chat import (
    ChatErrorKind,
    ChatErrorRecord,
    ChatErrorStage,
    ChatStore,
    EventLog,
    actions,
    selectors,
)
from voicethere.core.chat.state import TurnStats


async def _asynchronous(*_: object) -> None:
    raise AssertionError("never called")


@pytest.mark.parametrize("made", [ChatStore, EventLog])
@pytest.mark.parametrize(
    ("listener", "words"),
    [(None, "the listener must be callable, not NoneType"), (_asynchronous, "must be a plain function")],
)
def test_a_listener_that_would_never_hear_is_refused(made: Any, listener: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        made().subscribe(listener)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clock": lambda: 1.0}, r"clock must have now\(\), in epoch seconds; function has not"),
        ({"new_id": "id"}, "new_id must be callable, not str"),
    ],
)
def test_a_store_says_what_its_settings_lack(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        ChatStore(**options)


@pytest.mark.parametrize(
    "given", [{"input_tokens": 3, "duration_ms": 40}, {"inputTokens": 3, "durationMs": 40}]
)
def test_turn_stats_are_taken_by_their_names_in_python_and_in_frames(given: dict[str, Any]) -> None:
    store = ChatStore()
    store.dispatch(actions.set_turn_stats("c", given))
    assert selectors.select_current_turn_stats(store.state, "c") == TurnStats(input_tokens=3, duration_ms=40)


def test_an_unknown_name_in_turn_stats_is_refused_rather_than_lost() -> None:
    with pytest.raises(ValueError, match=r"unknown name 'tps': must be one of .*tokensPerSecond"):
        actions.set_turn_stats("c", {"inputTokens": 3, "tps": 5})


@pytest.mark.parametrize(
    ("kind", "status", "recoverable"),
    [
        ("http_error", 404, False),
        ("http_error", 503, True),
        ("ws_error", None, True),
        ("unknown_error", None, False),
    ],
)
@pytest.mark.parametrize("action", [actions.set_error, actions.push_error])
def test_a_record_made_by_hand_may_leave_its_recoverability_to_the_store(
    kind: str, status: int | None, recoverable: bool, action: Any
) -> None:
    """seed-2: `recoverable?` is optional in a record."""
    record = ChatErrorRecord(
        id="e", kind=ChatErrorKind(kind), stage=ChatErrorStage.SEND, message="m", at=5, status=status
    )
    store = ChatStore()
    store.dispatch(action("c", record))
    current = selectors.select_current_error(store.state, "c")
    assert current is not None
    assert (current.id, current.at, current.recoverable) == ("e", 5, recoverable)
    assert selectors.select_has_recoverable_error(store.state, "c") is recoverable
