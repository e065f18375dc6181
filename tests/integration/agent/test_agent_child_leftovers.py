"""Many children that end at any moment: each is told of once, and nothing of them is left."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from voicethere.core.clock import SystemClock
from voicethere.errors.causes import CrashKind
from voicethere.roles.runner.agent_child import AgentChild, AgentSpec, AgentTimeouts, ChildGone
from voicethere.testing.clock import ManualClock
from voicethere.wire import ipc

AGENT = """
import time
from voicethere.agent import agent_log, define_agent, send_to_client, speak

def message(ctx):
    for n in range(200):
        speak(ctx.session_id, f"number {n}")
        send_to_client(ctx.session_id, {"n": n})
        print("line", n)
    time.sleep(60)

define_agent(on_data_channel_message=message)
"""


async def until(condition: Callable[[], bool]) -> None:
    """For what gives no event of its own."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def open_descriptors() -> int:
    gc.collect()  # what other tests forgot must not close in between
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def spec(tmp_path: Path) -> AgentSpec:
    tmp_path.chmod(0o755)
    (tmp_path / "agent.py").write_text(AGENT)
    return AgentSpec(bundle_dir=tmp_path, environment={"SESSION_ID": "s1"})


class Watched:
    """A child that is killed when it has given `kill_after` events; 0 kills it as soon as it runs."""

    def __init__(self, sandbox, spec: AgentSpec, kill_after: int) -> None:
        self.events: list[object] = []
        self.gone = asyncio.Event()
        self._kill_after = kill_after
        self.child = AgentChild(
            sandbox,
            spec=spec,
            on_event=self._on_event,
            clock=SystemClock(),
            redact=lambda text: text,
            # Ten at once on a loaded machine: none of them must look hung before it is killed.
            limits=AgentTimeouts(start=30, ping_timeout=30),
        )

    def _on_event(self, event: object) -> None:
        self.events.append(event)
        if isinstance(event, ChildGone):
            self.gone.set()
        if isinstance(event, ipc.AgentLoaded):
            start = ipc.SessionStart(session_id="s1", project_id="p1", build_id="b1", env={})
            self.child.session_start(start)
        if isinstance(event, ipc.SessionStartAck):
            self.child.send(ipc.DataChannelMessage(session_id="s1", raw="go"))
        if len(self.events) == self._kill_after:
            self._kill()

    def _kill(self) -> None:
        if self.child.pid is not None:
            os.kill(self.child.pid, signal.SIGKILL)

    async def run(self) -> None:
        await self.child.start()
        if self._kill_after == 0:
            self._kill()
        async with asyncio.timeout(30):
            await self.gone.wait()
        await self.child.stop(1)


async def test_killed_at_any_moment_each_child_is_told_of_once_and_nothing_is_left(sandbox, spec):
    first = Watched(sandbox, spec, 1)
    await first.run()  # the sandbox's own descriptors are open from now on
    descriptors, tasks = open_descriptors(), len(asyncio.all_tasks())
    children = [Watched(sandbox, spec, moment) for moment in (0, 0, 1, 2, 3, 4, 10, 50, 100, 200)]
    await asyncio.gather(*(watched.run() for watched in children))
    for watched in children:
        gone = [event for event in watched.events if isinstance(event, ChildGone)]
        assert len(gone) == 1
        assert watched.events[-1] is gone[0]
        assert gone[0].crash is not None
        assert (gone[0].crash.kind, gone[0].crash.signal) == (CrashKind.SIGNAL, 9)
        with pytest.raises(ProcessLookupError):
            os.kill(watched.child.pid, 0)
    assert open_descriptors() == descriptors
    assert len(asyncio.all_tasks()) == tasks


async def test_a_start_that_is_cancelled_leaves_nothing(sandbox, spec):
    await Watched(sandbox, spec, 1).run()
    descriptors = open_descriptors()
    for turns in range(6):
        watched = Watched(sandbox, spec, -1)
        starting = asyncio.create_task(watched.child.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        await watched.child.stop(0)
        assert [event for event in watched.events if not isinstance(event, ChildGone)] == []
    await until(lambda: open_descriptors() == descriptors)


async def test_a_runner_that_was_held_up_does_not_blame_its_child(sandbox, spec):
    clock = ManualClock()
    events: list[object] = []
    loaded = asyncio.Event()

    def on_event(event: object) -> None:
        events.append(event)
        loaded.set()

    child = AgentChild(
        sandbox,
        spec=spec,
        on_event=on_event,
        clock=clock,
        redact=lambda text: text,
        limits=AgentTimeouts(ping_interval=0.04, ping_timeout=1),
    )
    await child.start()
    async with asyncio.timeout(30):
        await loaded.wait()
    dog = child._watchdog
    for _ in range(3):
        clock.advance(3600)  # what a clock shows to one who slept for an hour
        earlier = dog._pings
        await until(lambda earlier=earlier: dog._pings > earlier and not dog._unanswered)
    await child.stop(1)
    assert events[1:] == [ChildGone(crash=None)]
