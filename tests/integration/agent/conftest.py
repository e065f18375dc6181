"""A bench for real agent children: a bundle's source in, the runner's events out."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.core.clock import SystemClock
from voicethere.core.ports import Clock, SandboxPort
from voicethere.roles.runner.agent_child import AgentChild, AgentEvent, AgentSpec, AgentTimeouts
from voicethere.roles.runner.agent_events import AgentError, ChildGone, LogLine
from voicethere.testing.subprocess_sandbox import SubprocessSandbox
from voicethere.wire import ipc
from voicethere.wire.control_channel import SpeechEventType

EventType = TypeVar("EventType")
WAIT_SECONDS = 20.0


class RunningAgent:
    """One child, and what the runner heard of it so far: `events`, and apart from them `hooks`, as
    `+name` and `-name`."""

    def __init__(self) -> None:
        self.events: list[AgentEvent] = []
        self.hooks: list[str] = []
        self._changed = asyncio.Event()
        self.child: AgentChild = None  # type: ignore[assignment]

    def on_event(self, event: AgentEvent) -> None:
        match event:
            case ipc.HandlerStarted(hook=hook):
                self.hooks.append(f"+{hook}")
            case ipc.HandlerFinished(hook=hook):
                self.hooks.append(f"-{hook}")
            case _:
                self.events.append(event)
        self._changed.set()

    def of(self, kind: type[EventType]) -> list[EventType]:
        return [event for event in self.events if isinstance(event, kind)]

    async def event(
        self, kind: type[EventType], where: Callable[[EventType], bool] = lambda event: True, nth: int = 1
    ) -> EventType:
        """The n-th event of this kind for which `where` is true; waits for it."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    found = [event for event in self.of(kind) if where(event)]
                    if len(found) >= nth:
                        return found[nth - 1]
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {kind.__name__}; there was {self.events}") from None

    async def log(self, part: str) -> LogLine:
        return await self.event(LogLine, lambda line: part in line.message)

    async def said(self, text: str) -> ipc.Speak:
        return await self.event(ipc.Speak, lambda speak: speak.text == text)

    async def failure(self, nth: int = 1) -> AgentError:
        return await self.event(AgentError, nth=nth)

    async def gone(self) -> ChildGone:
        return await self.event(ChildGone)

    def lines(self) -> list[str]:
        return [line.message for line in self.of(LogLine)]

    def spoken(self) -> list[str]:
        return [speak.text for speak in self.of(ipc.Speak)]

    async def start_session(self, session_id: str = "s1", **more: Any) -> None:
        self.begin_session(session_id, **more)
        await self.event(ipc.SessionStartAck, lambda ack: ack.session_id == session_id)

    def begin_session(self, session_id: str = "s1", **more: Any) -> None:
        defaults: dict[str, Any] = {"project_id": "p1", "build_id": "b1", "env": {"SESSION_ID": session_id}}
        self.child.session_start(ipc.SessionStart(session_id=session_id, **{**defaults, **more}))

    def hear(self, text: str, session_id: str = "s1") -> None:
        """The user said `text`."""
        self.child.send(
            ipc.SpeechEventMessage(session_id=session_id, event=SpeechEventType.USER_SPEECH_FINAL, text=text)
        )

    def speech_event(self, event: str, text: str | None = None, session_id: str = "s1") -> None:
        self.child.send(
            ipc.SpeechEventMessage(session_id=session_id, event=SpeechEventType(event), text=text)
        )

    def sent(self) -> list[Any]:
        """What the client was sent, as JSON."""
        return [json.loads(message.payload) for message in self.of(ipc.SendToClient)]

    def data(self, raw: str, session_id: str = "s1") -> None:
        self.child.send(ipc.DataChannelMessage(session_id=session_id, raw=raw))

    async def end_session(self, session_id: str = "s1") -> None:
        self.child.session_end(session_id)
        await self.event(ipc.SessionEndAck, lambda ack: ack.session_id == session_id)


StartAgent = Callable[..., Awaitable[RunningAgent]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Everything runs in the real sandbox; modules that say `ON_BOTH_SANDBOXES` on the port's fake too."""
    if "sandbox" in metafunc.fixturenames:
        both = getattr(metafunc.module, "ON_BOTH_SANDBOXES", False)
        metafunc.parametrize("sandbox", ["confined", "plain"] if both else ["confined"], indirect=True)


@pytest.fixture
async def sandbox(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SandboxPort]:
    sandbox: SandboxPort
    if request.param == "plain":
        sandbox = SubprocessSandbox()
    else:
        scratch = tmp_path_factory.mktemp("scratch")
        sandbox = ZygoteSandbox(preload=["voicethere.agent.child"], scratch_root=scratch)
    yield sandbox
    await sandbox.aclose()


@pytest.fixture
async def start_agent(sandbox: SandboxPort, tmp_path: Path) -> AsyncIterator[StartAgent]:
    """`await start_agent(source, files=..., timeouts=..., env=..., loaded=True)` gives a RunningAgent.

    `clock` is what its watchdog goes by."""
    started: list[RunningAgent] = []

    async def start(
        source: str,
        *,
        files: dict[str, str] | None = None,
        timeouts: AgentTimeouts | None = None,
        env: dict[str, str] | None = None,
        redact: Callable[[str], str] = lambda text: text,
        loaded: bool = True,
        on_event: Callable[[AgentEvent], None] | None = None,
        clock: Clock | None = None,
    ) -> RunningAgent:
        folder = tmp_path / f"bundle{len(started)}"
        folder.mkdir()
        for name, text in {"agent.py": source, **(files or {})}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(textwrap.dedent(text))
        agent = RunningAgent()
        agent.child = AgentChild(
            sandbox,
            spec=AgentSpec(bundle_dir=folder, environment=env or {}),
            on_event=on_event or agent.on_event,
            clock=clock or SystemClock(),
            redact=redact,
            # A loaded test machine is not what these tests are about.
            limits=timeouts or AgentTimeouts(start=30, ping_timeout=30),
        )
        started.append(agent)
        await agent.child.start()
        if loaded:
            await agent.event(ipc.AgentLoaded)
        return agent

    yield start
    for agent in started:
        await agent.child.stop(0)
