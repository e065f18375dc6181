"""Log lines and traces of the child: bounded and valid, whatever an agent puts into them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicethere.agent.log_lines import bounded_fields, log_line
from voicethere.agent.traces import Describer, cut_in_the_middle
from voicethere.wire import ipc


class Hostile:
    def __repr__(self):
        raise RuntimeError("no repr")


class HostileError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def test_a_long_message_is_cut_visibly():
    assert log_line("info", "x" * 2048, None, None).message == "x" * 2048
    cut = log_line("info", "x" * 2049, None, None).message
    assert (len(cut), cut[-2:]) == (2048, "x…")
    assert len(log_line("info", "\ud800" * 2048, None, None).message) <= 2048


@pytest.mark.parametrize(
    "fields",
    [
        {"a": "x" * 9000},
        {"quotes": '"' * 8000},
        {"controls": "\x01" * 8000},
        {(1, 2): 3},
        {"hostile": Hostile()},
        {"surrogate": "\ud800" * 3000},
    ],
)
def test_fields_past_the_limit_or_not_json_become_a_preview(fields):
    bounded = bounded_fields(fields)
    assert bounded["truncated"] is True
    assert len(json.dumps(bounded, ensure_ascii=False)) <= ipc.MAX_LOG_FIELDS_CHARS
    ipc.encode(ipc.Log(level="info", message="m", fields=bounded))


def test_cycles_become_a_preview():
    fields: dict[str, object] = {}
    fields["self"] = fields
    assert bounded_fields(fields)["truncated"] is True


def test_what_json_cannot_hold_is_shown():
    assert bounded_fields({"a": {1}, "n": 2**70, 3: None}) == {"a": "{1}", "n": str(2**70), "3": None}


LEAVES = st.integers() | st.floats() | st.text(max_size=20) | st.none()


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=20), LEAVES | st.lists(LEAVES, max_size=5), max_size=5))
def test_any_fields_can_be_sent(fields):
    bounded = bounded_fields(fields)
    assert len(json.dumps(bounded, ensure_ascii=False)) <= ipc.MAX_LOG_FIELDS_CHARS
    ipc.encode(ipc.Log(level="info", message="m", fields=bounded))


def test_an_exception_without_words_is_described():
    described = Describer("/bundle").describe(HostileError())
    assert described.message == "HostileError: (its words cannot be read: __str__ raised)"
    assert "HostileError" in described.stack
    assert Describer("/bundle").describe(KeyboardInterrupt()).message == "KeyboardInterrupt"


def test_paths_of_the_bundle_are_shown_as_inside_it():
    described = Describer("/bundle/").describe(
        ImportError("cannot import x from y (/bundle/pkg/y.py) \ud800")
    )
    assert described.message == "ImportError: cannot import x from y (pkg/y.py) \\ud800"


def test_long_texts_keep_both_ends():
    described = Describer("/bundle").describe(ValueError("a" + "b" * 100_000 + "z"))
    assert len(described.message) == ipc.MAX_ERROR_MESSAGE_CHARS
    assert described.message.endswith("bz")
    assert len(described.stack) <= ipc.MAX_STACK_CHARS
    assert cut_in_the_middle("x" * 100, 100) == "x" * 100
