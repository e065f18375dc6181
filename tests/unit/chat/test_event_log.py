"""The event log behind a debug panel: bounds, families, summaries, listeners, exports."""

from __future__ import annotations

import logging
from typing import Any

import msgspec.yaml
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.chat.sem_conversation import event, message
from voicethere.chat import EventLog, EventLogEntry, LifecyclePhase
from voicethere.chat.event_lines import FAMILIES, MAX_LINE_CHARS, family_of, one_line, summary_of
from voicethere.chat.event_log import MAX_ENTRIES, MAX_PAYLOAD_BYTES
from voicethere.testing.clock import ManualClock
from voicethere.wire.sem import EVENT_DATA, SemEvent


@pytest.fixture
def log() -> EventLog:
    return EventLog(clock=ManualClock(now=1_781_870_400.25))


def test_an_entry_holds_what_was_recorded(log: EventLog) -> None:
    entry = log.record("c", "lifecycle", "ws.open", "socket open", {"attempt": 1})
    assert (entry.number, entry.at_ms, entry.conv_id) == (1, 1_781_870_400_250, "c")
    assert (entry.family, entry.type, entry.summary) == ("lifecycle", "ws.open", "socket open")
    assert entry.payload == {"attempt": 1}
    assert log.entries("c") == (entry,)
    assert log.entries("d") == ()


def test_a_conversation_keeps_its_newest_1000_entries(log: EventLog) -> None:
    log.record("d", "log", "log", "other")
    for number in range(MAX_ENTRIES + 5):
        log.record("c", "log", "log", str(number))
    assert [entry.summary for entry in log.entries("c")] == [str(n) for n in range(5, MAX_ENTRIES + 5)]
    assert len(log.entries("d")) == 1
    log.clear("c")
    assert log.entries("c") == ()
    assert log.conversation_ids() == ("d",)
    log.clear("nobody")


def test_a_log_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_entries must be at least 1, not 0"):
        EventLog(max_entries=0)


def test_entries_are_filtered_by_family(log: EventLog) -> None:
    for family in ("llm", "error", "llm", "timeline"):
        log.record("c", family, "x", family)
    assert [entry.family for entry in log.entries("c", ["llm", "error"])] == ["llm", "error", "llm"]
    assert [entry.family for entry in log.entries("c", "timeline")] == ["timeline"]
    assert log.entries("c", []) == ()
    assert log.export_text("c", ["error"]).count("\n") == 1


@pytest.mark.parametrize(
    ("type", "family"),
    [
        ("llm.thinking.delta", "llm"),
        ("timeline.upsert", "timeline"),
        ("log", "log"),
        ("agent.mode", "agent"),
        ("agent.message", "agent"),
        ("debugger.pause", "debugger"),
        ("session.error", "error"),
        ("session.other", "other"),
        ("lifecycle", "other"),
        ("", "other"),
    ],
)
def test_the_family_follows_from_the_type(type: str, family: str) -> None:
    assert family_of(type) == family
    assert family in FAMILIES


@pytest.mark.parametrize(
    ("type", "data", "summary"),
    [
        ("llm.start", {"role": "assistant"}, "m1 assistant"),
        ("llm.thinking.start", None, "m1"),
        ("llm.delta", {"delta": "lo", "cumulative": "hello"}, 'm1 +"lo" (5 chars)'),
        ("llm.thinking.delta", {"delta": "a\nb"}, 'm1 +"a b"'),
        ("llm.final", {"text": "x" * 100}, f'm1 "{"x" * 59}…"'),
        ("llm.thinking.summary", {"text": ""}, "m1"),
        ("llm.thinking.final", None, "m1"),
        ("timeline.upsert", message("e1", 7, content="hi", streaming=True), 'message e1 v7 streaming "hi"'),
        ("timeline.upsert", {"entity": {"id": "t", "kind": "tool"}}, "tool t v0"),
        ("log", {"level": "warn", "message": "m"}, "warn: m"),
        ("agent.mode", {"title": "t"}, "m1 t"),
        ("debugger.pause", {"pauseId": "p", "phase": "before", "summary": "s"}, "p before s"),
        ("session.error", {"code": "X", "message": "words", "session_id": "s"}, "X: words"),
        ("agent.message", {"any": 1}, "m1"),
    ],
)
def test_an_event_is_one_line(log: EventLog, type: str, data: Any, summary: str) -> None:
    heard = event(type, "m1", data, seq=4)
    assert summary_of(heard) == summary
    entry = log.record_event("c", heard)
    assert (entry.family, entry.type, entry.summary) == (family_of(type), type, summary)
    assert entry.payload["seq"] == 4
    assert entry.payload["id"] == "m1"


def test_every_event_of_the_contract_has_a_family_and_a_summary() -> None:
    for type in EVENT_DATA:
        assert family_of(type) != "other"
        assert summary_of(SemEvent(type=type, id="by hand", data=7)) == "by hand"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400), st.integers(1, 200))
def test_a_line_is_one_bounded_printable_line(text: str, most: int) -> None:
    line = one_line(text, most)
    assert len(line) <= most
    assert line.isprintable()
    assert line == line.strip()


def test_nothing_that_a_terminal_obeys_gets_into_a_line(log: EventLog) -> None:
    entry = log.record("c", "x\x07" * 50, "t\x1b]0;\n" * 500, "a\x1b[31mb\r\nc\u202ed\x00")
    assert entry.summary == "a�[31mb c�d�"
    assert (len(entry.family), len(entry.type)) == (40, 100)
    assert len(one_line("x" * 10_000_000)) == MAX_LINE_CHARS
    assert (log.export_text("c") + "x").splitlines()[-1] == "x"
    assert "\x1b" not in log.export_text("c")


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize(
    "payload",
    [
        "x" * 1_000_000,
        {"deep": [[["y" * 50_000]]]},
        list(range(100_000)),
        {"a": object()},
        "\ud800",
        {1: {2}},
    ],
    ids=range(6),
)
def test_a_payload_that_does_not_fit_or_is_no_json_is_marked(log: EventLog, payload: Any) -> None:
    entry = log.record("c", "log", "log", "s", payload)
    assert len(entry.payload_json) <= MAX_PAYLOAD_BYTES
    assert entry.payload


def test_a_payload_with_a_cycle_is_marked(log: EventLog) -> None:
    entry = log.record("c", "log", "log", "s", {"cycle": _cycle()})
    assert b"too deep" in entry.payload_json


def test_a_payload_does_not_change_with_what_it_was_made_of(log: EventLog) -> None:
    payload = {"items": [1]}
    entry = log.record("c", "log", "log", "s", payload)
    payload["items"].append(2)
    entry.payload["items"].append(3)
    assert entry.payload == {"items": [1]}


def test_listeners_hear_of_each_entry_until_they_stop(
    log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[EventLogEntry] = []
    of_c: list[EventLogEntry] = []

    def failing(entry: EventLogEntry) -> None:
        raise RuntimeError("a listener's own trouble")

    log.subscribe(failing)
    stop = log.subscribe(heard.append)
    log.subscribe(of_c.append, "c")
    with caplog.at_level(logging.ERROR, "voicethere.chat"):
        first = log.record("c", "log", "log", "one")
        second = log.record("d", "log", "log", "two")
    assert caplog.text.count("a listener of the event log failed") == 2
    assert heard == [first, second]
    assert of_c == [first]
    stop()
    stop()
    log.record("d", "log", "log", "three")
    assert len(heard) == 2


@pytest.mark.states("sem-chat/phases/names")
def test_the_phases_have_the_names_of_the_contract(log: EventLog) -> None:
    """sem-chat: "Lifecycle phases, for debugging"."""
    assert [phase.value for phase in LifecyclePhase] == [
        "connect.begin",
        "connect.reuse",
        "disconnect",
        "ws.open",
        "ws.close",
        "ws.error",
        "hydrate.start",
        "hydrate.snapshot.applied",
        "hydrate.fetch.failed",
        "hydrate.fetch.error",
        "frame.buffered",
        "replay.begin",
        "replay.complete",
        "hydrate.complete",
    ]
    entry = log.record_phase("c", LifecyclePhase.WS_CLOSE, "closed with 1006", code=1006)
    assert (entry.family, entry.type, entry.payload) == ("lifecycle", "ws.close", {"code": 1006})
    assert log.record_phase("c", LifecyclePhase.WS_OPEN).summary == "ws.open"


def test_the_text_has_a_line_for_each_entry(log: EventLog) -> None:
    log.record("c", "lifecycle", "ws.open", "socket open")
    log.record_event("c", event("llm.delta", "m1", {"delta": "lo"}))
    assert log.export_text("c") == (
        "2026-06-19T12:00:00.250Z  lifecycle  ws.open  socket open\n"
        '2026-06-19T12:00:00.250Z  llm        llm.delta  m1 +"lo"\n'
    )
    assert log.export_text("nobody") == ""


HOSTILE = [
    "x: [",
    "\x1b[31m",
    "- !!python/object:os.system",
    "a\u2028b\u0085c",
    "yes",
    "007",
    "",
    "'\"",
    "€𝄞",
]


def test_yaml_holds_the_payloads_and_reads_back(log: EventLog) -> None:
    log.record("c", "lifecycle", "ws.open", "socket open", {"attempt": 1})
    log.record("c", "log", "log", "hostile", HOSTILE)
    log.record("c", "log", "log", "many", {"number": 2**70, "none": None, "big": 1e300})
    text = log.export_yaml("c")
    assert "\x1b" not in text
    document = msgspec.yaml.decode(text)
    assert document["conversation"] == "c"
    assert [entry["summary"] for entry in document["entries"]] == ["socket open", "hostile", "many"]
    assert document["entries"][0] == {
        "number": 1,
        "at": "2026-06-19T12:00:00.250Z",
        "family": "lifecycle",
        "type": "ws.open",
        "summary": "socket open",
        "payload": {"attempt": 1},
    }
    assert document["entries"][1]["payload"] == HOSTILE
    assert document["entries"][2]["payload"] == {"number": 2**70, "none": None, "big": 1e300}
    assert msgspec.yaml.decode(log.export_yaml("nobody")) == {"conversation": "nobody", "entries": []}


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_payload_is_exported(payload: Any) -> None:
    log = EventLog()
    log.record("c", "log", "log", "s", payload)
    entry = msgspec.yaml.decode(log.export_yaml("c"))["entries"][0]
    assert entry["payload"] == log.entries("c")[0].payload


def test_a_conversation_without_an_id_is_refused(log: EventLog) -> None:
    with pytest.raises(ValueError, match="conv_id"):
        log.record("", "log", "log", "s")
    assert log.conversation_ids() == ()
