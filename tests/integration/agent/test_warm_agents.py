"""Warm children in the real sandbox: what an agent finds in one is what it finds in a fresh one."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent.conftest import WAIT_SECONDS, RunningAgent
from voicethere.adapters.bundles import DirectoryBundleStore
from voicethere.core.clock import SystemClock
from voicethere.core.ports import ChildProcess, ChildSpec, SandboxLimits, SandboxPort
from voicethere.errors import Redactor
from voicethere.errors.causes import CrashKind
from voicethere.roles.runner.agent_events import ChildGone, LogLine
from voicethere.roles.runner.agent_supply import AgentSupply
from voicethere.roles.runner.agent_watchdog import AgentTimeouts
from voicethere.roles.runner.session_environment import environment_of
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.wire import ipc
from voicethere.wire.relay import DeployedAgent
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import SessionSettings

SOURCE = """
import os
import sys
from voicethere.agent import define_agent, speak

AHEAD = {name: os.environ.get(name) for name in ("SESSION_ID", "PROJECT_ID", "COLOUR", "KEY")}
print("imported with", os.environ.get("KEY"))

def on_agent_start(ctx):
    print("started", sorted(set(ctx.env) & {"SESSION_ID", "COLOUR"}), file=sys.stderr)

def on_session_start(ctx):
    names = ("SESSION_ID", "PROJECT_ID", "COLOUR", "KEY", "AGENT_CUSTOMER_CONTEXT")
    speak(ctx.session_id, f"ahead: {AHEAD}")
    speak(ctx.session_id, f"environ: {[os.environ.get(name) for name in names]}")
    speak(ctx.session_id, f"ctx: {[ctx.env.get(name) for name in names]}")
    speak(ctx.session_id, f"pid: {os.getpid()}")

def on_user_speech_final(ctx):
    if ctx.text == "raise":
        raise ValueError("as you wished")
    if ctx.text == "eat":
        food = []
        while True:
            food.append(bytearray(1024 * 1024))
    os.abort()

define_agent(
    on_agent_start=on_agent_start,
    on_session_start=on_session_start,
    on_user_speech_final=on_user_speech_final,
)
"""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


class Platform:
    """A supply of agents on the real sandbox, and one deployed agent."""

    def __init__(self, supply: AgentSupply, bundles: UnpackedBundles, agent: DeployedAgent) -> None:
        self.supply = supply
        self.bundles = bundles
        self.agent = agent

    async def warmed(self, count: int = 1) -> None:
        """So many are ready."""
        await until(lambda: self.supply.warm.waiting >= count)

    async def session(self, session_id: str = "s1") -> RunningAgent:
        """A session whose agent is started."""
        running = RunningAgent()
        context = {"user": session_id}
        environment = environment_of(self.agent, session_id, context)
        running.child = self.supply.agent(  # type: ignore[assignment]
            session_id,
            self.agent,
            bundle_dir=await self.bundles.folder(self.agent.bundle_checksum),
            environment=environment,
            on_event=running.on_event,
            redact=Redactor(self.agent.secrets.values()).text,
        )
        await running.child.start()
        await running.event(ipc.AgentLoaded)
        await running.start_session(session_id, env=environment, customer_context=context)
        return running


NewPlatform = Callable[..., Awaitable[Platform]]


@pytest.fixture
async def platform(sandbox: SandboxPort, tmp_path: Path) -> AsyncIterator[NewPlatform]:
    """`await platform(source)`: nothing is warm yet."""
    made: list[Platform] = []

    async def make(source: str = SOURCE, **changes: Any) -> Platform:
        data = textwrap.dedent(source).encode()
        store = DirectoryBundleStore(tmp_path / "bundles")
        checksum = hashlib.sha256(data).hexdigest()
        await store.put(checksum, data)
        bundles = UnpackedBundles(store, tmp_path / "unpacked")
        agent = DeployedAgent(
            project_id="p1",
            build_id="b1",
            bundle_checksum=checksum,
            mode=Mode.DATA,
            settings=SessionSettings(),
            environment={"COLOUR": "red"},
            secrets={"KEY": "k-hunter2"},
            **changes,
        )
        supply = AgentSupply(
            sandbox=sandbox,
            clock=SystemClock(),
            limits=SandboxLimits(memory_bytes=128 * 1024 * 1024),
            bundles=bundles,
            timeouts=AgentTimeouts(start=30, ping_timeout=30),
        )
        made.append(Platform(supply, bundles, agent))
        return made[-1]

    yield make
    for each in made:
        await each.supply.aclose()
        assert each.supply.warm.waiting == 0


def said(running: RunningAgent, topic: str) -> str:
    (words,) = [text for text in running.spoken() if text.startswith(f"{topic}: ")]
    return words.removeprefix(f"{topic}: ")


async def test_an_agent_finds_the_same_in_a_warm_child_as_in_a_fresh_one(platform: NewPlatform) -> None:
    made = await platform()
    fresh = await made.session()
    made.supply.keep_warm([made.agent])
    await made.warmed()
    warm = await made.session()
    assert made.supply.warm.taken == 1
    # All the same once there is a session …
    for topic in ("environ", "ctx"):
        assert said(warm, topic) == said(fresh, topic)
    assert said(warm, "environ") == str(["s1", "p1", "red", "k-hunter2", '{"user":"s1"}'])
    # … and while the bundle is imported, all but the session's own.
    assert "'SESSION_ID': 's1'" in said(fresh, "ahead")
    assert said(warm, "ahead") == said(fresh, "ahead").replace("'s1'", "None")
    assert fresh.lines() == ["imported with [redacted]", "started ['COLOUR', 'SESSION_ID']"]
    assert warm.lines() == ["imported with [redacted]", "started ['COLOUR']"]
    assert [line.level for line in warm.of(LogLine)] == ["info", "warn"]
    for running in (fresh, warm):
        await running.end_session()
        await running.child.stop(1)
        assert await running.gone() == ChildGone(crash=None)


async def test_what_fails_in_it_fails_as_in_a_fresh_one(platform: NewPlatform) -> None:
    made = await platform()

    async def failures(running: RunningAgent, word: str) -> list[Any]:
        running.hear(word)
        if word == "raise":
            error = await running.failure()
            await running.child.stop(0)
            return [error.hook, error.message, error.stack, error.last_log_lines[0]]
        gone = await running.gone()
        assert gone.crash is not None
        return [gone.crash.kind, gone.crash.signal, gone.crash.exit_status, gone.crash.message]

    for word in ("raise", "abort", "eat"):
        made.supply.keep_warm([])
        fresh = await failures(await made.session(), word)
        taken = made.supply.warm.taken
        made.supply.keep_warm([made.agent])
        await made.warmed()
        assert await failures(await made.session(), word) == fresh
        assert made.supply.warm.taken == taken + 1


async def test_killing_a_warm_child_harms_nobody(
    platform: NewPlatform, sandbox: SandboxPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[int] = []
    start = sandbox.start

    async def recording(spec: ChildSpec) -> ChildProcess:
        child = await start(spec)
        recorded.append(child.pid)
        return child

    monkeypatch.setattr(sandbox, "start", recording)
    made = await platform()
    made.supply.keep_warm([made.agent])
    await made.warmed()
    one = await made.session("s1")
    await made.warmed()
    _, waiting = recorded
    os.kill(waiting, signal.SIGKILL)
    two = await made.session("s2")  # at once: the runner has yet to hear of it
    assert len(recorded) > 2
    for session_id, running in (("s1", one), ("s2", two)):
        assert said(running, "environ").startswith(f"['{session_id}'")
        assert running.of(ChildGone) == []
        await running.end_session(session_id)
        await running.child.stop(1)
    await made.warmed()
    assert made.supply.children == 1


async def test_an_agent_that_cannot_be_loaded_tells_it_to_the_session_only(platform: NewPlatform) -> None:
    made = await platform("raise ImportError('no')")
    made.supply.keep_warm([made.agent])
    await until(lambda: made.supply.warm.lost > 0)
    running = RunningAgent()
    running.child = made.supply.agent(  # type: ignore[assignment]
        "s1",
        made.agent,
        bundle_dir=await made.bundles.folder(made.agent.bundle_checksum),
        environment={},
        on_event=running.on_event,
        redact=str,
    )
    await running.child.start()
    gone = await running.gone()
    assert gone.crash is not None
    assert gone.crash.kind is CrashKind.LOAD_FAILURE
    await running.child.stop(0)
