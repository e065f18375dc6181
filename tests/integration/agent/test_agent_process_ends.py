"""The end of an agent's process, however it comes: exactly one `ChildGone`, saying what it was."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from voicethere.core.clock import SystemClock
from voicethere.errors.causes import Crash, CrashKind
from voicethere.roles.runner.agent_child import AgentChild, AgentSpec, AgentTimeouts
from voicethere.roles.runner.agent_events import ChildGone, LogLine
from voicethere.testing.clock import ManualClock
from voicethere.wire import ipc

RUNS = """
    import asyncio, ctypes, os, sys, threading, time
    from voicethere.agent import agent_log, define_agent, speak

    async def message(ctx):
        exec(ctx.message)

    def binary(ctx):
        exec(ctx.data.decode())

    awake = threading.Event()

    define_agent(on_data_channel_message=message, on_data_channel_binary=binary)
"""

QUICK_PINGS = AgentTimeouts(start=30, ping_interval=0.05, ping_timeout=0.3, hook=30)
"""For a clock that the test moves: on a machine that is held up for so long every agent looks blocked."""


async def crash_of(agent) -> Crash:
    crash = (await agent.gone()).crash
    assert crash is not None
    assert len(agent.of(ChildGone)) == 1
    assert agent.events[-1] is agent.of(ChildGone)[0]
    return crash


async def started(start_agent, **options):
    agent = await start_agent(RUNS, **options)
    await agent.start_session()
    return agent


@pytest.mark.parametrize(
    ("code", "status"), [("os._exit(7)", 7), ("sys.exit(3)", 3), ("sys.exit()", 0), ("sys.exit('bye')", 1)]
)
@pytest.mark.parametrize("plain", [False, True])
async def test_a_handler_that_exits_ends_the_process_with_its_status(start_agent, code, status, plain):
    agent = await started(start_agent)
    agent.data('"print(1)"')
    code = f"agent_log('info', 'last words'); {code}"
    if plain:
        agent.child.send(ipc.DataChannelBinary(session_id="s1", data=code.encode(), channel="sync"))
    else:
        agent.data(code)
    crash = await crash_of(agent)
    assert (crash.kind, crash.exit_status, crash.signal) == (CrashKind.EXITED, status, None)
    assert "info: last words" in crash.last_log_lines


async def test_a_kill_from_outside_is_a_signal(start_agent):
    agent = await started(start_agent)
    os.kill(agent.child.pid, signal.SIGKILL)
    crash = await crash_of(agent)
    assert (crash.kind, crash.signal, crash.exit_status) == (CrashKind.SIGNAL, 9, None)


async def test_a_crash_of_the_interpreter_is_a_signal_with_its_trace_in_the_log(start_agent):
    agent = await started(start_agent)
    agent.data("ctypes.string_at(0)")
    crash = await crash_of(agent)
    assert (crash.kind, crash.signal) == (CrashKind.SIGNAL, signal.SIGSEGV)
    assert "Fatal Python error: Segmentation fault" in agent.lines()
    assert any('agent.py", line 6 in message' in line for line in agent.lines())
    assert len(crash.last_log_lines) <= 20


@pytest.mark.parametrize(
    "code",
    [
        "raise MemoryError",
        "asyncio.get_running_loop().create_task(asyncio.to_thread(exec, 'raise MemoryError'))",
        "threading.Thread(target=exec, args=('raise MemoryError',)).start()",
    ],
)
async def test_memory_that_ran_out_is_told_as_such(start_agent, code):
    agent = await started(start_agent)
    agent.data(code)
    crash = await crash_of(agent)
    assert crash.kind is CrashKind.OUT_OF_MEMORY
    assert crash.message == "its limit is 512 MiB"


async def test_a_blocked_event_loop_is_unresponsive(start_agent):
    clock = ManualClock()
    agent = await started(start_agent, timeouts=QUICK_PINGS, clock=clock)
    agent.data("agent_log('info', 'blocked'); time.sleep(60)")
    await agent.log("blocked")
    async with asyncio.timeout(20):
        while not agent.of(ChildGone):
            clock.advance(QUICK_PINGS.ping_interval)
            await asyncio.sleep(QUICK_PINGS.tick)
    crash = await crash_of(agent)
    assert crash.kind is CrashKind.UNRESPONSIVE
    assert crash.message == "the agent did not answer for 0.3 s: something blocks the event loop"


async def test_a_plain_hook_that_blocks_does_not_block_the_pings(start_agent):
    clock = ManualClock()
    agent = await started(start_agent, timeouts=QUICK_PINGS, clock=clock)
    await agent.start_session("s2")
    code = b"agent_log('info', 'blocked'); awake.wait(60); speak('s1', 'awake')"
    agent.child.send(ipc.DataChannelBinary(session_id="s1", data=code, channel="sync"))
    await agent.log("blocked")
    dog = agent.child._watchdog
    async with asyncio.timeout(20):
        for ping in range(dog._pings, dog._pings + 12):  # it counts one interval of each hour: 0.6 s
            clock.advance(3600)
            while dog._pings <= ping or dog._unanswered:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(QUICK_PINGS.tick)
    agent.data("awake.set()", "s2")
    await agent.said("awake")
    assert agent.of(ChildGone) == []


@pytest.mark.parametrize("plain", [False, True])
async def test_a_hook_past_its_time_is_unresponsive(start_agent, plain):
    agent = await start_agent(
        f"""
        import asyncio, time
        from voicethere.agent import define_agent
        {"def message(ctx): time.sleep(60)" if plain else "async def message(ctx): await asyncio.sleep(60)"}
        define_agent(on_data_channel_message=message)
        """,
        timeouts=AgentTimeouts(start=30, ping_timeout=30, hook=0.2),
    )
    await agent.start_session()
    agent.data("go")
    crash = await crash_of(agent)
    assert crash.kind is CrashKind.UNRESPONSIVE
    assert crash.message == "the agent on_data_channel_message did not return within 0.2 s"


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.sleep(60)",
        "import asyncio\nfrom voicethere.agent import define_agent\n"
        "async def start(ctx): await asyncio.sleep(60)\ndefine_agent(on_agent_start=start)",
    ],
)
async def test_a_start_past_its_time_is_unresponsive(start_agent, source):
    agent = await start_agent(source, timeouts=AgentTimeouts(start=0.6), loaded=False)
    crash = await crash_of(agent)
    assert crash.kind is CrashKind.UNRESPONSIVE
    assert "did not finish loading and on_agent_start within 0.6 s" in crash.message


async def test_an_end_past_its_time_is_unresponsive(start_agent):
    agent = await started(start_agent, timeouts=AgentTimeouts(start=30, ping_timeout=30, end=0.2))
    agent.child.send(ipc.DataChannelBinary(session_id="s1", data=b"time.sleep(60)", channel="sync"))
    agent.child.session_end("s1")
    assert "did not finish session_end within 0.2 s" in (await crash_of(agent)).message


async def test_a_child_that_stops_reading_is_unresponsive_when_the_outbox_is_full(start_agent):
    agent = await started(start_agent)
    agent.data("time.sleep(60)")
    payload = "x" * 60_000
    for _ in range(1000):
        agent.data(payload)
    crash = await crash_of(agent)
    assert (crash.kind, crash.message) == (CrashKind.UNRESPONSIVE, "the agent did not read what it was sent")


@pytest.mark.parametrize("junk", ["b'\\x00\\x00\\x00\\x02hi'", "b'\\xff' * 100"])
async def test_junk_on_the_channel_ends_the_child(start_agent, junk):
    agent = await started(start_agent)
    for fd in range(3, 40):
        agent.data(
            f"import stat\n"
            f"try:\n    sock = stat.S_ISSOCK(os.fstat({fd}).st_mode)\nexcept OSError:\n    sock = False\n"
            f"if sock: os.write({fd}, {junk})"
        )
    crash = await crash_of(agent)
    assert crash.kind in (
        CrashKind.UNRESPONSIVE,
        CrashKind.SIGNAL,
    )  # a frame too long is the sandbox's to end


async def test_stop_ends_the_sessions_first_and_is_no_crash(start_agent):
    agent = await start_agent(
        """
        from voicethere.agent import agent_log, define_agent
        define_agent(on_session_end=lambda ctx: agent_log("info", f"end of {ctx.session_id}"))
        """
    )
    await agent.start_session("s1")
    await agent.start_session("s2")
    await agent.child.stop(20)
    await agent.child.stop(20)
    assert sorted(agent.lines()) == ["end of s1", "end of s2"]
    assert agent.events[-1] == ChildGone(crash=None)
    assert len(agent.of(ChildGone)) == 1


async def test_stop_does_not_wait_longer_than_its_grace(start_agent):
    agent = await started(start_agent)
    agent.data("time.sleep(600)")
    await agent.child.stop(0.1)
    assert agent.of(ChildGone) == [ChildGone(crash=None)]


async def test_stop_of_a_child_that_was_never_started_is_silent(sandbox, tmp_path):
    events = []
    child = AgentChild(
        sandbox,
        spec=AgentSpec(bundle_dir=tmp_path, environment={}),
        on_event=events.append,
        clock=SystemClock(),
        redact=str,
    )
    await child.stop(1)
    assert events == []
    assert child.pid is None


async def test_an_event_handler_that_raises_does_not_cost_the_next_event(start_agent):
    seen = []

    def on_event(event):
        seen.append(event)
        if not isinstance(event, ChildGone):
            raise RuntimeError("a bug of the host")

    agent = await start_agent(RUNS, on_event=on_event, loaded=False)
    agent.begin_session()
    agent.data("os._exit(5)")
    agent.on_event(ChildGone(crash=None))
    await agent.child._supervisor
    assert isinstance(seen[0], ipc.AgentLoaded)
    assert isinstance(seen[-1], ChildGone)
    assert seen[-1].crash.exit_status == 5


# ------------------------------------------------------------------ floods


async def test_log_lines_are_bounded_and_redacted(start_agent):
    agent = await started(start_agent, redact=lambda text: text.replace("hunter2", "***"))
    agent.data(
        "agent_log('info', 'hunter2 ' + 'x' * 5000, {'a': 'y' * 9000})\n"
        "agent_log('info', 'small', {'password': 'hunter2', 'deep': [{'k': 'hunter2'}], 'n': 2 ** 80, "
        "'o': object})\n"
        "print('hunter2' + 'z' * 20000)\n"
        "speak('s1', 'done')"
    )
    await agent.said("done")
    long = await agent.log("xxx")
    assert len(long.message) <= ipc.MAX_LOG_MESSAGE_CHARS
    assert long.message.startswith("*** x")
    assert long.fields is not None
    assert long.fields["truncated"] is True
    small = await agent.log("small")
    assert small.fields == {
        "password": "***",
        "deep": [{"k": "***"}],
        "n": str(2**80),
        "o": "<class 'object'>",
    }
    printed = await agent.event(LogLine, lambda line: line.message.startswith("***zzz"))
    assert len(printed.message) <= ipc.MAX_LOG_MESSAGE_CHARS


async def test_a_flood_of_log_lines_is_sampled_with_a_count(start_agent):
    agent = await started(start_agent)
    flood = "for n in range(5000): agent_log('info', f'line {n}')\nspeak('s1', 'done')"
    agent.child.send(ipc.DataChannelBinary(session_id="s1", data=flood.encode(), channel="sync"))
    await agent.said("done")
    await agent.child.stop(0)
    lines = agent.lines()
    assert len(lines) < 2500
    assert any("lines of this log were left out" in line for line in lines)


async def test_a_flood_of_messages_to_the_client_is_dropped_visibly(start_agent):
    agent = await started(start_agent)
    flood = (
        "from voicethere.agent import send_to_client\n"
        "for n in range(8000): send_to_client('s1', n)\n"
        "agent_log('info', 'flooded')"
    )
    agent.child.send(ipc.DataChannelBinary(session_id="s1", data=flood.encode(), channel="sync"))
    await agent.log("flooded")
    await agent.child.stop(0)
    assert 1000 <= len(agent.of(ipc.SendToClient)) < 7000
    assert any("messages were dropped: the agent sends more" in line for line in agent.lines())


async def test_messages_of_other_sessions_are_dropped_visibly(start_agent):
    agent = await started(start_agent)
    agent.data(
        "from voicethere.agent.process import this_process\n"
        "from voicethere.wire import ipc\n"
        "send = this_process.link._send\n"
        "send(ipc.Speak(session_id='other', speech_id=1, text='hi'))\n"
        "send(ipc.SendToClient(session_id='s1', payload='not json'))\n"
        "send(ipc.SendToClient(session_id='s1', payload='1' * 70000))\n"
        "send(ipc.SendBinaryToClient(session_id='s1', data=b'', channel='secret'))\n"
        "send(ipc.SessionEndAck(session_id='s1'))\n"
        "send(ipc.SessionStartAck(session_id='s1'))\n"
        "send(ipc.IdleTimeoutDone(session_id='s1'))\n"
        "send(ipc.AgentError(session_id='other', hook='h', message='m', stack='s'))\n"
        "send(ipc.AgentLoaded(hooks=[], commands=[]))\n"
        "send(ipc.Speak(session_id='s1', speech_id=1, text='x' * 20000))\n"
        "send(ipc.Log(level='shout', message='m', session_id='other'))\n"
        "speak('s1', 'done')"
    )
    await agent.said("done")
    dropped = [line for line in agent.lines() if line.startswith("dropped: ")]
    assert len(dropped) == 10, dropped
    assert [type(event).__name__ for event in agent.events if not isinstance(event, LogLine)] == [
        "AgentLoaded",
        "SessionStartAck",
        "Speak",
    ]
    assert (await agent.event(LogLine, lambda line: line.message == "m")).session_id is None
