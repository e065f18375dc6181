"""Limits hold for everything, cuts are visible, and nothing breaks the encoding."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicethere.errors import Bounds, SessionErrorEnvelope, context_problem, fit_envelope, truncate_context
from voicethere.errors.bounds import cut_end, cut_middle, fit_object, json_bytes, sanitise

_TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(_TEXT, inner, max_size=8),
    max_leaves=60,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def envelope(**fields: Any) -> SessionErrorEnvelope:
    return SessionErrorEnvelope(
        **{"code": "AGENT_CHILD_CRASHED", "message": "Sorry.", "session_id": "s" * 36, "project_id": "p" * 36}
        | {"build_id": "b" * 36, "occurred_at": "2026-06-19T12:00:00.000Z"}
        | fields
    )


def test_the_defaults_are_the_contract() -> None:
    bounds = Bounds()
    assert bounds.message_chars == 2_048
    assert bounds.stack_bytes == 32 * 1024
    assert (bounds.context_bytes, bounds.context_depth) == (8 * 1024, 8)
    assert bounds.details_bytes == 16 * 1024
    assert bounds.envelope_bytes == 60 * 1024


def test_sanitised_text_can_be_encoded_and_keeps_its_lines() -> None:
    shown = sanitise("a\x00b\ud800c\x1b[31m\td\r\ne\x9f é 😀")
    assert shown == "a\ufffdb\ufffdc\ufffd[31m\td\r\ne\ufffd é 😀"
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown


def test_a_message_is_cut_at_its_end() -> None:
    assert cut_end("abc", 3) == "abc"
    assert cut_end("abcd", 3) == "ab…"
    assert cut_end("abcd", 0) == ""


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400), st.integers(0, 300))
def test_a_stack_is_cut_in_the_middle(text: str, limit: int) -> None:
    shown = cut_middle(text, limit)
    assert len(shown.encode()) <= limit
    if len(text.encode()) <= limit:
        assert shown == text
    elif limit >= 80:
        head, mark, tail = shown.split("\n… ")[0], "bytes left out …\n", shown.split("left out …\n")[-1]
        assert mark in shown
        assert text.startswith(head)
        assert text.endswith(tail)
        assert min(len(head.encode()), len(tail.encode())) >= (limit - 40) // 2 - 4
        assert len(head.encode()) + len(tail.encode()) + int(shown.split("\n… ")[1].split()[0]) == len(
            text.encode()
        )


# ------------------------------------------------------------------ customer_context


def levels(count: int) -> dict[str, Any]:
    value: dict[str, Any] = {"leaf": 1}
    for _ in range(count - 1):
        value = {"a": value}
    return value


def sized(size: int) -> dict[str, Any]:
    return {"a": "x" * (size - len('{"a":""}'))}


LOOP: dict[str, Any] = {}
LOOP["self"] = LOOP

PROBLEMS: list[tuple[Any, str]] = [
    ([], "must be a JSON object, not an array"),
    (None, "must be a JSON object, not null"),
    ("x", "must be a JSON object, not a string"),
    (levels(9), "deeper than the 8 levels"),
    (LOOP, "deeper than the 8 levels"),
    (sized(8_193), "is 8,193 bytes as JSON; at most 8,192 are allowed"),
    ({"a": {1: 2}}, "a key in customer_context['a'] is not a string but a number"),
    ({"a": ["\ud800"]}, "customer_context['a'][0] holds a lone surrogate"),
    ({"\ud800": 1}, "a key in customer_context holds a lone surrogate"),
    ({"a": 2**64}, "customer_context['a'] is an integer of more than 64 bits"),
    ({"a": float("nan")}, "customer_context['a'] is not a finite number"),
    ({"a": object()}, "customer_context['a'] is not JSON but a object"),
]


@pytest.mark.parametrize(("value", "words"), PROBLEMS)
def test_a_context_that_is_refused_says_why(value: Any, words: str) -> None:
    problem = context_problem(value)
    assert problem is not None
    assert words in problem


@pytest.mark.parametrize(
    "value", [{}, levels(8), sized(8_192), {"é": [1, None, True, 0.5, {"x": 2**64 - 1}], "n": -(2**63)}]
)
def test_a_context_within_the_limits_is_taken_as_it_is(value: Any) -> None:
    assert context_problem(value) is None
    assert truncate_context(value) == value


def test_a_caller_may_have_limits_of_its_own() -> None:
    assert context_problem(levels(3), max_depth=2) is not None
    assert context_problem(sized(100), max_bytes=99) is not None
    assert context_problem(sized(9_000), Bounds(context_bytes=9_000)) is None


def test_what_a_context_loses_is_marked() -> None:
    assert truncate_context(levels(9))["a"]["a"]["a"]["a"]["a"]["a"]["a"]["a"] == "[truncated: too deep]"
    shown = truncate_context({"id": "u1", "note": "x" * 20_000})
    assert shown["id"] == "u1"
    assert shown["note"].endswith("x…")
    many = truncate_context({"id": "u1", "items": list(range(5_000))})
    assert many["id"] == "u1"
    assert "items left out" in many["items"][-1]
    fields = truncate_context({f"field {n}": "x" * 40 for n in range(400)}, Bounds(context_bytes=500))
    assert "fields left out" in fields["_truncated"]
    assert truncate_context([1]) == {"value": [1]}


@settings(deadline=None)
@given(_JSON, st.integers(2, 400), st.integers(1, 9))
def test_structured_data_always_fits(value: Any, size: int, levels_allowed: int) -> None:
    shown = fit_object({"v": value}, max_bytes=size, max_depth=levels_allowed)
    encoded = msgspec.json.encode(shown)
    assert len(encoded) <= size
    assert depth(shown) <= levels_allowed
    assert msgspec.json.decode(encoded) == shown


# ------------------------------------------------------------------ the envelope

_FIELD = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def test_the_stack_gives_way_first() -> None:
    whole = envelope(
        stack="first\n" + '"\n' * 30_000 + "last", customer_context={"id": "u1"}, message="m" * 2_000
    )
    assert json_bytes(whole) > 100_000
    shown = fit_envelope(whole, None)
    assert json_bytes(shown) <= 60 * 1024
    assert isinstance(shown.stack, str)
    assert json_bytes(shown.stack) > 55_000
    assert shown.stack.startswith("first\n")
    assert shown.stack.endswith("last")
    assert "bytes left out" in shown.stack
    assert (shown.message, shown.customer_context) == (whole.message, whole.customer_context)


def test_then_the_context_then_the_message() -> None:
    whole = envelope(stack="s" * 5_000, customer_context={"id": "u1", "n": "x" * 7_000}, message="m" * 2_000)
    without_stack = fit_envelope(whole, 4_000)
    assert without_stack.stack is msgspec.UNSET
    assert isinstance(without_stack.customer_context, dict)
    assert without_stack.customer_context["id"] == "u1"
    assert without_stack.message == whole.message
    without_context = fit_envelope(whole, 1_000)
    assert without_context.customer_context in (msgspec.UNSET, {})
    assert "bytes left out" in without_context.message
    assert without_context.build_id == whole.build_id


def test_a_peer_that_takes_more_gets_no_more() -> None:
    assert json_bytes(fit_envelope(envelope(stack="s" * 200_000), 1_000_000)) <= 60 * 1024


def test_what_fits_is_left_alone() -> None:
    whole = envelope(stack="s", customer_context={"id": "u1"})
    assert fit_envelope(whole, json_bytes(whole)) is whole


@settings(deadline=None)
@given(
    st.builds(lambda part, times: part * times, _FIELD, st.integers(0, 3_000)),
    st.dictionaries(
        _FIELD, st.builds(lambda part, times: part * times, _FIELD, st.integers(0, 200)), max_size=6
    ),
    st.builds(lambda part, times: part * times, _FIELD, st.integers(0, 50)),
    st.integers(300, 70_000),
)
def test_an_envelope_always_fits(stack: str, context: dict[str, Any], message: str, limit: int) -> None:
    whole = envelope(stack=stack, customer_context=context, message=message)
    shown = fit_envelope(whole, limit)
    assert json_bytes(shown) <= min(limit, 60 * 1024)
    assert (shown.code, shown.session_id, shown.recoverable) == (
        whole.code,
        whole.session_id,
        whole.recoverable,
    )


def test_far_too_little_room_leaves_what_a_client_needs() -> None:
    shown = fit_envelope(envelope(message="m" * 500), 60)
    assert (shown.type, shown.code, shown.session_id) == ("session_error", "AGENT_CHILD_CRASHED", "s" * 36)
    assert json_bytes(shown) < 200
