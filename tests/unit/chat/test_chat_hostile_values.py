"""Hostile values: refused where the action is made, in words that name the argument; or bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from voicethere.chat import ChatErrorRecord, ChatStore, TimelineEntity, actions, selectors

NAN, INFINITE, HUGE = float("nan"), float("inf"), 10**4000
a: Any = actions


def push(**fields: Any) -> Any:
    return actions.push_error("c", **{"kind": "ws_error", "stage": "stream", **fields})


def entity(**fields: Any) -> TimelineEntity:
    return TimelineEntity(**{"id": "e", "kind": "message", "created_at": 1, **fields})


def cycle() -> dict[str, Any]:
    props: dict[str, Any] = {}
    props["self"] = [props, props]
    return props


REFUSED: list[tuple[str, type[Exception], str, Callable[[], Any]]] = [
    ("no conversation", ValueError, "conv_id", lambda: a.clear_error("")),
    (
        "a number as conversation",
        TypeError,
        "conv_id",
        lambda: a.push_error(7, kind="ws_error", stage="send"),
    ),
    ("a huge conversation id", ValueError, "conv_id", lambda: a.set_is_streaming("c" * 1_025, True)),
    ("a huge window id", ValueError, "window_id", lambda: a.begin_awaiting_ai("w" * 1_025, "c")),
    ("a kind that is a list", ValueError, "error kind", lambda: push(kind=[])),
    ("a stage that is None", ValueError, "error stage", lambda: push(stage=None)),
    ("a huge kind", ValueError, "unknown error kind", lambda: push(kind="x" * 10_000_000)),
    ("a message that is bytes", TypeError, "message", lambda: push(message=b"x")),
    ("a source that is a list", TypeError, "source", lambda: push(source=[])),
    ("a code that is a number", TypeError, "code", lambda: push(code=500)),
    ("a status that is text", TypeError, "status", lambda: push(status="500")),
    ("a status that is True", TypeError, "status", lambda: push(status=True)),
    ("a status that is none", ValueError, "status", lambda: push(status=99)),
    ("a huge status", ValueError, "status", lambda: push(status=HUGE)),
    ("recoverable by a number", TypeError, "recoverable", lambda: push(recoverable=1)),
    ("a time that is NaN", ValueError, "at", lambda: push(at=NAN)),
    ("a time that is infinite", ValueError, "at", lambda: push(at=INFINITE)),
    ("a negative time", ValueError, "at", lambda: push(at=-1)),
    ("a huge time", ValueError, "at", lambda: push(at=HUGE)),
    ("a time as text", TypeError, "at", lambda: push(at="now")),
    ("details that are a list", TypeError, "details", lambda: push(details=[1])),
    ("an empty error id", ValueError, "id", lambda: push(id="")),
    ("an error that is a dict", TypeError, "ChatErrorRecord", lambda: a.push_error("c", {"kind": "x"})),
    ("a record with a wrong kind", ValueError, "kind", lambda: a.set_error("c", broken_record())),
    ("fields without a kind", ValueError, "a kind and a stage", lambda: a.set_error("c", message="x")),
    ("text that is a number", TypeError, "text", lambda: warned(7)),
    ("a flag that is a string", TypeError, "is_streaming", lambda: a.set_is_streaming("c", "true")),
    ("a model that is a dict", TypeError, "name", lambda: a.set_model_name("c", {})),
    ("tokens that are NaN", ValueError, "tokens", lambda: a.update_stream_tokens("c", NAN)),
    ("tokens that are True", TypeError, "tokens", lambda: a.update_stream_tokens("c", True)),
    ("huge tokens", ValueError, "input_tokens", lambda: a.add_conversation_usage("c", input_tokens=HUGE)),
    ("tokens as text", TypeError, "cached", lambda: a.add_conversation_usage("c", cached_tokens="1")),
    ("a stream start that is NaN", ValueError, "at_ms", lambda: a.mark_stream_start("c", NAN)),
    ("stats that are a list", TypeError, "stats", lambda: a.set_turn_stats("c", [])),
    ("stats with a text", TypeError, "stats", lambda: a.set_turn_stats("c", {"inputTokens": "3"})),
    (
        "stats with NaN",
        ValueError,
        "tokens_per_second",
        lambda: a.set_turn_stats("c", {"tokensPerSecond": NAN}),
    ),
    ("negative stats", ValueError, "duration_ms", lambda: a.set_turn_stats("c", {"durationMs": -1})),
    ("an entity that is a dict", TypeError, "TimelineEntity", lambda: a.upsert_entity("c", {"id": "e"})),
    ("an entity without an id", ValueError, "entity.id", lambda: a.add_entity("c", entity(id=""))),
    ("an entity without a kind", ValueError, "entity.kind", lambda: a.add_entity("c", entity(kind=""))),
    ("an entity of NaN", ValueError, "created_at", lambda: a.add_entity("c", entity(created_at=NAN))),
    ("an entity updated never", TypeError, "updated_at", lambda: a.add_entity("c", entity(updated_at="x"))),
    ("a version of 1.5", TypeError, "version", lambda: a.add_entity("c", entity(version=1.5))),
    ("a huge version", ValueError, "version", lambda: a.add_entity("c", entity(version=HUGE))),
    ("props that are a list", TypeError, "props", lambda: a.add_entity("c", entity(props=[]))),
    (
        "props with NaN",
        ValueError,
        r"props\.x\[1\]",
        lambda: a.add_entity("c", entity(props={"x": [1, NAN]})),
    ),
    (
        "props with an object",
        TypeError,
        r"props\.x",
        lambda: a.add_entity("c", entity(props={"x": object()})),
    ),
    ("props with a number as key", TypeError, "keys", lambda: a.add_entity("c", entity(props={1: 2}))),
    ("props with a huge number", ValueError, "64 bits", lambda: a.add_entity("c", entity(props={"x": HUGE}))),
    ("props in a cycle", ValueError, "nested deeper", lambda: a.add_entity("c", entity(props=cycle()))),
    ("a snapshot that is none", TypeError, "entities", lambda: a.apply_snapshot("c", None)),
    ("a snapshot of strings", TypeError, "TimelineEntity", lambda: a.merge_snapshot("c", ["e"])),
    ("a target without a name", ValueError, "to_id", lambda: a.rekey_entity("c", "a", "")),
    ("one suggestion as text", TypeError, "suggestions", lambda: suggest(suggestions="yes")),
    ("a suggestion of None", TypeError, r"suggestions\[1\]", lambda: suggest(suggestions=["a", None])),
    ("a suggestion's time", ValueError, "updated_at", lambda: suggest(updated_at=NAN)),
    ("consumed at NaN", ValueError, "at", lambda: a.consume_suggestions("c", "s", NAN)),
]


def broken_record() -> ChatErrorRecord:
    made: Any = ChatErrorRecord
    record: ChatErrorRecord = made("id", "nonsense", "send", "m", True, 1)
    return record


def warned(text: Any) -> None:
    with pytest.warns(DeprecationWarning, match="set_error"):
        a.set_stream_error("c", text)


def suggest(**fields: Any) -> Any:
    given: dict[str, Any] = {"entity_id": "s", "source": "assistant", "suggestions": ["a"], **fields}
    return actions.upsert_suggestions("c", **given)


@pytest.mark.parametrize(
    ("kind", "words", "make"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_it_is_refused_where_the_action_is_made(
    kind: type[Exception], words: str, make: Callable[[], Any]
) -> None:
    with pytest.raises(kind, match=words) as refused:
        make()
    assert len(str(refused.value)) < 400


def test_an_errors_texts_are_bounded_and_hold_no_control_characters() -> None:
    store = ChatStore()
    store.dispatch(push(message="a\x00\x1b[31m" + "\ud800" * 5_000, source="s" * 9_999, code="c" * 9_999))
    record = selectors.select_current_error(store.state, "c")
    assert record is not None
    assert len(record.message) == 2_048
    assert record.message.startswith("a\ufffd\ufffd[31m\ufffd")
    assert record.source is not None
    assert record.code is not None
    assert (len(record.source), len(record.code)) == (200, 200)
    assert record.message.encode()


def test_details_that_are_not_json_are_bounded_rather_than_refused() -> None:
    """An error must not be lost for what a server put beside it."""
    store = ChatStore()
    details = {"nan": NAN, "deep": [[[[[[[[[[1]]]]]]]]]], "object": object(), "many": list(range(100_000))}
    store.dispatch(push(details=details))
    record = selectors.select_current_error(store.state, "c")
    assert record is not None
    assert record.details is not None
    assert len(str(record.details)) < 40_000
