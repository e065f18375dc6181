"""The watchdog's seconds, without waiting for any; the rates and bounds of what a child may send."""

from __future__ import annotations

import asyncio

import pytest

from voicethere.core.ports import OutputLine
from voicethere.roles.runner.agent_journal import Journal
from voicethere.roles.runner.agent_outbox import Outbox
from voicethere.roles.runner.agent_rate import MessageGate, TokenBucket
from voicethere.roles.runner.agent_watchdog import AgentTimeouts, Watchdog
from voicethere.testing.clock import ManualClock
from voicethere.wire import ipc


@pytest.fixture
def dog() -> Watchdog:
    return Watchdog(AgentTimeouts())


def test_the_defaults_are_the_contracts():
    assert AgentTimeouts() == AgentTimeouts(
        start=10, hook=60, error_hook=5, ping_interval=1, ping_timeout=5, end=10
    )
    assert AgentTimeouts().tick == 0.25


def test_loading_has_its_time_and_is_not_pinged(dog):
    dog.started()
    dog.pass_time(9.9)
    assert (dog.overdue(), dog.ping_due()) == (None, None)
    dog.pass_time(0.1)
    assert dog.overdue() == "did not finish loading and on_agent_start within 10 s"


def test_pings_go_out_every_second_and_are_waited_for_five(dog):
    dog.started()
    dog.loaded()
    assert dog.ping_due() == 1
    assert dog.ping_due() is None
    dog.pass_time(1)
    assert dog.ping_due() == 2
    dog.pong(99)
    dog.pass_time(3.9)
    assert dog.overdue() is None
    dog.pass_time(0.1)
    assert dog.overdue() == "did not answer for 5 s: something blocks the event loop"
    dog.pong(1)
    assert dog.overdue() is None
    dog.pass_time(1)
    assert dog.overdue() is not None
    dog.pong(2)
    dog.pass_time(100)
    assert dog.overdue() is None


def test_a_hook_has_sixty_seconds_and_the_next_has_its_own(dog):
    dog.hook_began("s1", "on_speech_event")
    dog.pass_time(59)
    dog.hook_over("s1")
    dog.hook_began("s1", "on_user_speech_final")
    dog.hook_began("s2", "on_session_start")
    dog.pass_time(59)
    dog.hook_over("s2")
    assert dog.overdue() is None
    dog.pass_time(1)
    assert dog.overdue() == "on_user_speech_final did not return within 60 s"


def test_starts_and_ends_of_sessions_are_waited_for(dog):
    dog.session_starting("s1")
    dog.pass_time(65)
    assert dog.overdue() == "did not acknowledge session_start within 65 s"
    dog.session_started("s1")
    dog.session_ending("s1")
    assert dog.overdue() is None
    dog.pass_time(10)
    assert dog.overdue() == "did not finish session_end within 10 s"
    dog.session_ended("s1")
    assert dog.overdue() is None


def test_a_bucket_fills_at_its_rate_and_no_higher_than_its_burst():
    bucket = TokenBucket(burst=2, per_second=10, now=0)
    assert [bucket.take(now=0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(now=0.1) for _ in range(2)] == [True, False]
    assert [bucket.take(now=100) for _ in range(3)] == [True, True, False]
    assert not bucket.take(now=50)


def test_the_gate_counts_messages_and_bytes_and_tells_once_a_second():
    gate = MessageGate(0.0)
    assert sum(gate.allows(1, now=0) for _ in range(1500)) == 1000
    assert gate.refused_to_tell(now=0) == 500
    assert not gate.allows(1, now=0)
    assert gate.refused_to_tell(now=0.5) == 0
    assert gate.refused_to_tell(now=0.5, last=True) == 1
    large = MessageGate(0.0)
    assert sum(large.allows(1024 * 1024, now=0) for _ in range(30)) == 16


async def test_the_outbox_refuses_what_is_too_much_and_keeps_its_order():
    outbox = Outbox(max_frames=3, max_bytes=10)
    assert [outbox.put(frame) for frame in (b"1", b"2", b"3", b"4")] == [True, True, True, False]
    assert [await outbox.take() for _ in range(3)] == [b"1", b"2", b"3"]
    assert outbox.put(b"x" * 11) is False
    waiting = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    assert outbox.put(b"x" * 10) is True
    assert await waiting == b"x" * 10


def test_the_journal_keeps_the_last_twenty_lines_even_of_those_left_out():
    clock = ManualClock()
    lines = []
    journal = Journal(write=lines.append, clock=clock, redact=lambda text: text.replace("secret", "***"))
    for n in range(600):
        journal.printed(OutputLine("stdout", f"secret {n}"))
    assert len(lines) == 500
    assert lines[0].message == "*** 0"
    assert lines[0].time == "2026-06-19T12:00:00.000Z"
    assert journal.last_lines == tuple(f"info: secret {n}" for n in range(580, 600))
    clock.advance(1)
    journal.remark("more")
    assert [line.message for line in lines[-2:]] == [
        "100 lines of this log were left out: more than 100 a second",
        "more",
    ]


def test_the_journal_trusts_no_field():
    lines = []
    journal = Journal(write=lines.append, clock=ManualClock(), redact=str.upper)
    journal.logged(ipc.Log(level="shout", message="x" * 5000, fields={"a": "b" * 9000}), None)
    journal.logged(ipc.Log(level="error", message="m", fields={"a": {"b": ["c", 1]}}), "s1")
    assert (lines[0].level, len(lines[0].message)) == ("info", 2048)
    assert lines[0].fields["TRUNCATED"] is True
    assert (lines[1].fields, lines[1].session_id) == ({"A": {"B": ["C", 1]}}, "s1")
