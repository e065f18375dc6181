"""A session's end that fails or hangs: recorded as SESSION_END_FAILED, and waited for within limits only."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from voicethere.adapters.bundles import DirectoryBundleStore
from voicethere.adapters.rtc.server_peer import ServerPeer
from voicethere.core.clock import SystemClock
from voicethere.core.ports import ChildProcess, ChildSpec
from voicethere.errors.codes import SessionErrorCode
from voicethere.roles.runner import connections
from voicethere.roles.runner.runner import Runner
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.testing.queue import InMemoryErrorQueue
from voicethere.testing.relay import InMemoryRelayHub
from voicethere.testing.speech import ScriptedSpeech
from voicethere.testing.subprocess_sandbox import SubprocessSandbox
from voicethere.wire.queue import ErrorItem, QueueItem, SessionEndedItem
from voicethere.wire.relay import (
    AssignSession,
    CancelSession,
    DeployedAgent,
    PeerJoinedRoom,
    RoomClosed,
    RunnerHello,
    SignalToPeer,
)
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import SessionSettings

SOON = 20.0
BUNDLE = b"from voicethere.agent import define_agent\ndefine_agent()\n"
CHECKSUM = hashlib.sha256(BUNDLE).hexdigest()


class StubbornChild:
    """A child as the sandbox gave it, except for what becomes of its removal."""

    def __init__(self, child: ChildProcess, sandbox: StubbornSandbox) -> None:
        self._child = child
        self._sandbox = sandbox

    def __getattr__(self, name: str) -> Any:
        return getattr(self._child, name)

    async def frames(self) -> AsyncIterator[bytes]:
        async for frame in self._child.frames():
            yield frame
            self._sandbox.spoke.set()

    async def aclose(self) -> None:
        await self._child.aclose()
        if self._sandbox.fault == "hangs":
            await asyncio.Event().wait()
        elif self._sandbox.fault == "fails":
            raise OSError("the scratch folder is busy")


class StubbornSandbox(SubprocessSandbox):
    """`fault` is what becomes of the removal of a child: `hangs`, `fails`, or None. `spoke`: one is there."""

    def __init__(self, fault: str | None) -> None:
        super().__init__()
        self.fault = fault
        self.spoke = asyncio.Event()

    async def start(self, spec: ChildSpec) -> Any:
        return StubbornChild(await super().start(spec), self)


class Bench:
    """A runner with one session, and the service's end of its relay."""

    def __init__(self, directory: Path, fault: str | None) -> None:
        self.directory = directory
        self.queue = InMemoryErrorQueue()
        self.hub = InMemoryRelayHub()
        self.heard = self.hub.messages()
        self.sandbox = StubbornSandbox(fault)

    async def open(self) -> None:
        store = DirectoryBundleStore(self.directory / "bundles")
        await store.put(CHECKSUM, BUNDLE)
        self.runner = Runner(
            settings=RunnerSettings(
                runner_id="r",
                # Short only where it is waited for: a busy machine may need that long to end a process.
                teardown_seconds=1.0 if self.sandbox.fault == "hangs" else SOON,
                stop_agent_seconds=0.1,
                host_addresses=("127.0.0.1",),
            ),
            link=self.hub.new_link(lambda: RunnerHello(runner_id="r", capacity=2)),
            sandbox=self.sandbox,
            speech=ScriptedSpeech(),
            queue=self.queue,
            bundles=UnpackedBundles(store, self.directory / "unpacked"),
            clock=SystemClock(),
        )
        self.running = asyncio.create_task(self.runner.run())
        agent = DeployedAgent(
            project_id="p",
            build_id="b",
            bundle_checksum=CHECKSUM,
            mode=Mode.DATA,
            settings=SessionSettings(),
        )
        await self.hub.send("r", AssignSession(session_id="s", room_id="room-s", agent=agent))

    async def hears(self, kind: type[Any]) -> None:
        async with asyncio.timeout(SOON):
            async for _, message in self.heard:
                if isinstance(message, kind):
                    return

    async def ends(self) -> list[QueueItem | None]:
        """What was queued once the session is over."""
        await self.hub.send("r", CancelSession(session_id="s"))
        await self.hears(RoomClosed)
        return [delivery.item for delivery in await self.queue.receive(limit=10, wait_seconds=0)]

    async def aclose(self) -> None:
        self.sandbox.fault = None
        self.runner.stop()
        await asyncio.wait_for(self.running, SOON)
        await self.sandbox.aclose()


@pytest.fixture
async def bench(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, getattr(request, "param", None))
    await bench.open()
    yield bench
    await bench.aclose()


async def under_way(bench: Bench) -> None:
    """The agent's process is there, and so is a peer connection."""
    await bench.hub.send("r", PeerJoinedRoom(session_id="s", peer_id="client-1"))
    await bench.hears(SignalToPeer)
    await asyncio.wait_for(bench.sandbox.spoke.wait(), SOON)


async def test_a_teardown_in_which_nothing_fails_records_nothing(bench: Bench) -> None:
    await under_way(bench)
    (end,) = await bench.ends()
    assert isinstance(end, SessionEndedItem)
    assert end.failed is False


@pytest.mark.parametrize(
    ("bench", "words"),
    [("hangs", "did not close within 1 s"), ("fails", "the scratch folder is busy")],
    indirect=["bench"],
)
async def test_an_agents_process_that_cannot_be_removed_is_recorded(bench: Bench, words: str) -> None:
    await under_way(bench)
    error, end = await bench.ends()
    assert isinstance(error, ErrorItem)
    assert error.record.code is SessionErrorCode.SESSION_END_FAILED
    assert "the agent's process" in error.record.message
    assert words in error.record.message
    assert isinstance(end, SessionEndedItem)
    assert end.failed is True


async def test_a_peer_connection_that_hangs_while_it_closes_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StubbornPeer(ServerPeer):
        async def close(self) -> bool:
            await super().close()
            return False

    monkeypatch.setattr(connections, "ServerPeer", StubbornPeer)
    bench = Bench(tmp_path, None)
    await bench.open()
    await under_way(bench)
    error, end = await bench.ends()
    assert isinstance(error, ErrorItem)
    assert error.record.code is SessionErrorCode.SESSION_END_FAILED
    assert "the peer connection could not be closed" in error.record.message
    assert isinstance(end, SessionEndedItem)
    await bench.aclose()
