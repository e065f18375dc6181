"""Entities as words: the kinds of the contract, kinds that nobody knows, and properties of any type."""

from __future__ import annotations

from typing import Any

import pytest

from voicethere.chat import TimelineEntity
from voicethere.cli.chat.entity_words import EntityWords, entity_words


def _words(kind: str, **props: Any) -> EntityWords:
    return entity_words(TimelineEntity("e", kind, 1, props=props))


def test_messages_are_told_by_who_said_them() -> None:
    assert _words("message", role="user", content="hi") == ("you", "hi", "user", False)
    assert _words("message", role="assistant", content="hi", streaming=True) == ("agent", "hi", "agent", True)
    assert _words("message", role="tool", content="hi").label == "tool"
    assert _words("message").label == "agent"


@pytest.mark.parametrize(
    ("kind", "props", "label", "text"),
    [
        (
            "error",
            {"message": "Sorry.", "code": "AGENT_HANDLER_FAILED"},
            "error",
            "Sorry. [AGENT_HANDLER_FAILED]",
        ),
        ("log", {"level": "warn", "message": "slow", "fields": {"ms": 3}}, "log warn", 'slow {"ms": 3}'),
        ("agent_mode", {"title": "search", "data": None}, "mode", "search"),
        ("debugger_pause", {"phase": "tool", "summary": "wait", "deadlineMs": 0}, "paused", "tool: wait"),
        ("tool_result", {"rows": 2}, "tool_result", '{"rows": 2}'),
        ("empty", {}, "empty", ""),
    ],
)
def test_each_kind_has_a_label_and_a_text(kind: str, props: dict[str, Any], label: str, text: str) -> None:
    words = _words(kind, **props)
    assert (words.label, words.text) == (label, text)


@pytest.mark.parametrize("deadline", ["1700000000000", 1_700_000_000_000])
def test_a_pause_tells_until_when_in_either_spelling_of_a_number(deadline: int | str) -> None:
    assert _words("debugger_pause", phase="p", summary="s", deadlineMs=deadline).text.startswith(
        "p: s: until "
    )


@pytest.mark.parametrize("value", [None, 3, True, [1], {"a": 1}, "9" * 400, -1, 1.5])
@pytest.mark.parametrize("kind", ["message", "error", "log", "agent_mode", "debugger_pause"])
def test_no_property_of_another_type_is_a_crash(kind: str, value: object) -> None:
    names = ("role", "content", "message", "code", "level", "fields", "title", "data", "phase", "deadlineMs")
    assert isinstance(_words(kind, **dict.fromkeys(names, value)).text, str)
