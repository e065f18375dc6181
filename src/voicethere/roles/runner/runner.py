"""The runner: hosts sessions that the session service assigns over the relay.

It owns the clients' connections and outlives the agents' processes. It knows nothing of HTTP or of the
database: what it has to say for good goes into the queue.
"""

from __future__ import annotations

import asyncio

import structlog

from voicethere.core.ports import Clock, ErrorQueuePort, RunnerLink, SandboxPort, SpeechSuite
from voicethere.roles.runner.agent_supply import AgentSupply
from voicethere.roles.runner.agent_watchdog import AgentTimeouts
from voicethere.roles.runner.crash_speech import CrashSpeech
from voicethere.roles.runner.host import RunnerParts, SessionHost
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.wire.relay import (
    AssignSession,
    CancelSession,
    Heartbeat,
    KeepWarm,
    PeerJoinedRoom,
    PeerLeftRoom,
    RoomClosed,
    SessionAccepted,
    SessionRefused,
    SignalFromPeer,
    TokenIssued,
    ToRunner,
    ToService,
)
from voicethere.wire.session_api import FailureCode

_log = structlog.get_logger(__name__)

MAX_WAITING_MESSAGES = 4096


class Runner:
    """`run` serves until `stop`; sessions that are still on are ended as `runner_shutdown`.

    Sandbox, speech, queue and link belong to whoever made them, and are not closed here.
    """

    def __init__(
        self,
        *,
        settings: RunnerSettings,
        link: RunnerLink,
        sandbox: SandboxPort,
        speech: SpeechSuite,
        queue: ErrorQueuePort,
        bundles: UnpackedBundles,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._link = link
        self._outgoing: asyncio.Queue[ToService] = asyncio.Queue(MAX_WAITING_MESSAGES)
        self._crash_speech = CrashSpeech(speech.synthesizer)
        self._agents = AgentSupply(
            sandbox=sandbox,
            clock=clock,
            limits=settings.child_limits,
            timeouts=AgentTimeouts(start=settings.agent_start_seconds, hook=settings.hook_seconds),
            linger_seconds=settings.shared_child_linger_seconds,
        )
        self._parts = RunnerParts(
            settings=settings,
            agents=self._agents,
            speech=speech,
            queue=queue,
            bundles=bundles,
            crash_speech=self._crash_speech,
            clock=clock,
            send=self._send,
        )
        self._sessions: dict[str, SessionHost] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._draining = False
        self._stopping = asyncio.Event()

    def hosted(self) -> list[str]:
        """The ids of the sessions that are on; the link tells them to a service that has restarted."""
        return list(self._sessions)

    def stop(self) -> None:
        """Have `run` end every session and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve the link until `stop`."""
        tasks = [
            asyncio.create_task(self._receive(), name="relay in"),
            asyncio.create_task(self._transmit(), name="relay out"),
            asyncio.create_task(self._beat(), name="heartbeat"),
            asyncio.create_task(self._stopping.wait(), name="stop"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._draining = True
            await self._end_sessions()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._agents.aclose()
            await self._crash_speech.aclose()

    async def _end_sessions(self) -> None:
        for host in self._sessions.values():
            host.shut_down()
        if self._watchers:
            _, still = await asyncio.wait(self._watchers, timeout=self._settings.drain_seconds)
            for task in still:
                task.cancel()
            if still:
                _log.error("sessions_not_ended", sessions=self.hosted())

    # ------------------------------------------------------------------ the relay

    def _send(self, message: ToService) -> None:
        try:
            self._outgoing.put_nowait(message)
        except asyncio.QueueFull:
            # The link is stuck. What must not be lost goes through the queue, never only through here.
            _log.error("relay_behind", dropped=type(message).__name__)

    async def _transmit(self) -> None:
        while True:
            await self._link.send(await self._outgoing.get())

    async def _beat(self) -> None:
        while True:
            self._send(Heartbeat(active=len(self._sessions)))
            await asyncio.sleep(self._settings.heartbeat_seconds)

    async def _receive(self) -> None:
        async for message in self._link.messages():
            self._take(message)

    def _take(self, message: ToRunner) -> None:
        if isinstance(message, AssignSession):
            self._assign(message)
            return
        if isinstance(message, KeepWarm):
            return
        host = self._sessions.get(message.session_id)
        if host is None:
            if not isinstance(message, PeerLeftRoom):
                # The service thinks that the session is on: tell it otherwise.
                self._send(RoomClosed(session_id=message.session_id))
            return
        match message:
            case PeerJoinedRoom(peer_id=peer_id):
                host.peer_joined(peer_id)
            case PeerLeftRoom(peer_id=peer_id):
                host.peer_left(peer_id)
            case SignalFromPeer(peer_id=peer_id, message=text):
                host.signalled(peer_id, text)
            case TokenIssued():
                host.token_issued(message)
            case CancelSession():
                host.cancel()

    def _assign(self, message: AssignSession) -> None:
        session_id = message.session_id
        if session_id in self._sessions:
            self._send(SessionAccepted(session_id=session_id))
            return
        if self._draining or len(self._sessions) >= self._settings.capacity:
            reason = "the runner is leaving" if self._draining else "the runner is full"
            self._send(
                SessionRefused(
                    session_id=session_id, failure_code=FailureCode.RUNNER_UNAVAILABLE, message=reason
                )
            )
            return
        host = SessionHost(message, self._parts)
        self._sessions[session_id] = host
        watcher = asyncio.create_task(self._watch(host), name=f"watch {session_id}")
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        host.begin()
        self._send(SessionAccepted(session_id=session_id))

    async def _watch(self, host: SessionHost) -> None:
        await host.over.wait()
        del self._sessions[host.session_id]
