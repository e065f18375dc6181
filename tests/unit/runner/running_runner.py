"""A whole runner with everything around it in memory: for virtual time.

Real are the runner, its hosts and its supply of agents; the service is what the test says over the relay.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import msgspec

from tests.unit.runner.hosted_call import MemoryConnection, OneBundle
from tests.unit.runner.scripted_children import ScriptedSandbox
from voicethere.roles.runner.runner import Runner
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.testing.queue import InMemoryErrorQueue
from voicethere.testing.relay import InMemoryRelayHub
from voicethere.testing.scripted_gateway import ScriptedGateway
from voicethere.testing.speech import ScriptedSpeech
from voicethere.testing.virtual_time import LoopClock
from voicethere.wire.queue import QueueItem
from voicethere.wire.relay import AssignSession, DeployedAgent, ToRunner, ToService
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import SessionSettings

M = TypeVar("M")

AGENT = DeployedAgent(
    project_id="p",
    build_id="b",
    bundle_checksum="c",
    mode=Mode.DATA,
    settings=SessionSettings(idle_timeout_enabled=False),
)


class RunningRunner:
    """`runner` serves; `said` is what the service heard of it."""

    def __init__(self, *, memory: Callable[[], int] = lambda: 2**40, **settings: Any) -> None:
        self.sandbox = ScriptedSandbox()
        self.queue = InMemoryErrorQueue()
        self.hub = InMemoryRelayHub()
        self.said: list[ToService | None] = []
        self.gateway = ScriptedGateway(self.hub)
        self.clients: dict[str, MemoryConnection] = {}
        self.broken: set[str] = set()
        """Sessions for which no connection can be made."""
        self.link = self.hub.new_link(lambda: self.runner.hello(), linked=False)
        self.runner = Runner(
            settings=RunnerSettings(runner_id="r", **settings),
            link=self.link,
            sandbox=self.sandbox,
            speech=ScriptedSpeech(),
            queue=self.queue,
            bundles=OneBundle(),
            clock=LoopClock(),
            memory=memory,
            connect=self._connect,
        )
        self.running = asyncio.create_task(self.runner.run())
        self._listening = asyncio.create_task(self._listen())

    def _connect(self, *, session_id: str, **parts: Any) -> Any:
        if session_id in self.broken:
            raise RuntimeError("no connection today")
        self.clients[session_id] = MemoryConnection(**parts)
        return self.clients[session_id]

    async def _listen(self) -> None:
        async for runner_id, message in self.hub.messages():
            self.said.append(message)
            await self.gateway.take(runner_id, message)

    async def tell(self, *messages: ToRunner) -> None:
        """The service says so; a moment later it has been dealt with."""
        for message in messages:
            await self.hub.send("r", message)
        await asyncio.sleep(0.01)

    async def assign(self, *session_ids: str, agent: DeployedAgent = AGENT) -> None:
        await self.tell(
            *(AssignSession(session_id=name, room_id=f"room-{name}", agent=agent) for name in session_ids)
        )

    async def chat(self, *session_ids: str, agent: DeployedAgent = AGENT, **assigned: Any) -> None:
        """Chat sessions that are assigned."""
        await self.tell(
            *(
                AssignSession(session_id=name, room_id=f"room-{name}", agent=agent, chat=True, **assigned)
                for name in session_ids
            )
        )
        await asyncio.sleep(0.1)

    async def live(self, *session_ids: str, agent: DeployedAgent = AGENT) -> None:
        """Sessions that are assigned, and whose clients are there."""
        await self.assign(*session_ids, agent=agent)
        for session_id in session_ids:
            self.clients[session_id].events.opened()
            self.from_client(session_id, {"type": "session_hello", "customer_context": {}})
        await asyncio.sleep(0.1)

    def from_client(self, session_id: str, message: dict[str, Any]) -> None:
        self.clients[session_id].events.control(msgspec.json.encode(message).decode())

    def told(self, session_id: str, kind: str) -> list[dict[str, Any]]:
        """The messages of this `type` that the session's client was sent."""
        return [message for _, message in self.clients[session_id].sent if message.get("type") == kind]

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.said if isinstance(message, kind)]

    async def queued(self) -> list[QueueItem | None]:
        return [delivery.item for delivery in await self.queue.receive(limit=100, wait_seconds=0)]

    async def ended(self, seconds: float = 30.0) -> None:
        """`run` has returned."""
        await asyncio.wait_for(asyncio.shield(self.running), seconds)
        await asyncio.sleep(0.01)

    async def aclose(self) -> None:
        self.runner.stop()
        await self.ended()
        await self.hub.aclose()
        await self._listening
        assert all(child.killed for child in self.sandbox.children)


@contextlib.asynccontextmanager
async def running_runner(**options: Any) -> AsyncIterator[RunningRunner]:
    """`options` are runner settings, and `memory`."""
    made = RunningRunner(**options)
    made.link.relink()
    await asyncio.sleep(0.01)
    try:
        yield made
    finally:
        await made.aclose()
