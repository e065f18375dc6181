"""The runner: hosts sessions that the session service assigns over the relay.

It owns the clients' connections and outlives the agents' processes. It knows nothing of HTTP or of the
database: what it has to say for good goes into the queue.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import psutil
import structlog

from voicethere.core.ports import Clock, ErrorQueuePort, RunnerLink, SandboxPort, SpeechSuite
from voicethere.roles.runner.agent_supply import AgentSupply
from voicethere.roles.runner.agent_watchdog import AgentTimeouts
from voicethere.roles.runner.command_words import CommandWords
from voicethere.roles.runner.connections import ClientConnections
from voicethere.roles.runner.crash_speech import CrashSpeech
from voicethere.roles.runner.gauges import RunnerCounts, RunnerGauges
from voicethere.roles.runner.host import SessionHost
from voicethere.roles.runner.runner_parts import RunnerParts
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.roles.runner.warm_children import WarmRules
from voicethere.wire.control_channel import EndReason
from voicethere.wire.relay import (
    AssignSession,
    CancelSession,
    ChatPrompt,
    ChatTaken,
    EndSession,
    Heartbeat,
    KeepWarm,
    PeerJoinedRoom,
    PeerLeftRoom,
    RoomClosed,
    RunnerHello,
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


_GOODBYE_SECONDS = 1.0
"""How long what is still to be said over the relay may take at the end."""
_MIB = 1024 * 1024


def available_memory() -> int:
    """Bytes that this machine could give to new processes without swapping."""
    return int(psutil.virtual_memory().available)


class Runner:
    """`run` serves until `drain` or `stop`; sessions that are on then are ended as `runner_shutdown`.

    Sandbox, speech, queue and link belong to whoever made them, and are not closed here. `memory` says how
    many bytes are available; `connect` is for tests.
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
        memory: Callable[[], int] = available_memory,
        connect: Callable[..., ClientConnections] = ClientConnections,
    ) -> None:
        self._settings = settings
        self._link = link
        self._memory = memory
        self._outgoing: asyncio.Queue[ToService] = asyncio.Queue(MAX_WAITING_MESSAGES)
        self._crash_speech = CrashSpeech(speech.synthesizer)
        self._agents = AgentSupply(
            sandbox=sandbox,
            clock=clock,
            limits=settings.child_limits,
            bundles=bundles,
            timeouts=AgentTimeouts(start=settings.agent_start_seconds, hook=settings.hook_seconds),
            linger_seconds=settings.shared_child_linger_seconds,
            warm=WarmRules(
                children=settings.warm_children,
                per_agent=settings.warm_children_per_agent,
                seconds=settings.warm_child_seconds,
            ),
            has_room=self._has_memory,
        )
        self._counts = RunnerCounts()
        self._refused: Counter[FailureCode] = Counter()
        self._parts = RunnerParts(
            settings=settings,
            agents=self._agents,
            speech=speech,
            queue=queue,
            bundles=bundles,
            crash_speech=self._crash_speech,
            command_words=CommandWords(speech.recognizer),
            clock=clock,
            counts=self._counts,
            send=self._send,
            connect=connect,
        )
        self._sessions: dict[str, SessionHost] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()
        self._stopping = asyncio.Event()

    # ------------------------------------------------------------------ what may be asked of it

    def hosted(self) -> list[str]:
        """The ids of the sessions that are on; the link tells them to a service that has restarted."""
        return list(self._sessions)

    @property
    def draining(self) -> bool:
        """Whether it is leaving: it takes no more sessions."""
        return self._draining.is_set()

    def hello(self) -> RunnerHello:
        """What the link says of this runner, whenever it has to."""
        return RunnerHello(
            runner_id=self._settings.runner_id,
            capacity=self._settings.capacity,
            sessions=self.hosted(),
            draining=self.draining,
        )

    def gauges(self) -> RunnerGauges:
        """How it is doing now."""
        warm = self._agents.warm
        return RunnerGauges(
            sessions=len(self._sessions),
            hosted=self._counts.hosted,
            capacity=self._settings.capacity,
            draining=self.draining,
            children=self._agents.children,
            warm_children=warm.waiting,
            warm_taken=warm.taken,
            warm_lost=warm.lost,
            errors={code.value: count for code, count in self._counts.errors.items()},
            queue_put_failures=self._counts.queue_put_failures,
            refused={code.value: count for code, count in self._refused.items()},
            ignored_signals=dict(self._counts.ignored_signals),
        )

    # ------------------------------------------------------------------ its life

    def drain(self) -> None:
        """Take no more sessions, let those that are on go on for `drain_seconds`, then have `run` return.

        Asked a second time it is `stop`.
        """
        if self.draining:
            self.stop()
            return
        _log.info("runner_draining", sessions=len(self._sessions), seconds=self._settings.drain_seconds)
        self._leave()

    def stop(self) -> None:
        """Have `run` end every session and return."""
        self._leave()
        self._stopping.set()

    def _leave(self) -> None:
        if not self.draining:
            self._draining.set()
            self._agents.keep_warm([])
            self._say_how_it_is()  # at once: who assigns sessions should not have to be refused first

    async def run(self) -> None:
        """Serve the link until `drain` or `stop`."""
        tasks = [
            asyncio.create_task(self._receive(), name="relay in"),
            asyncio.create_task(self._transmit(), name="relay out"),
            asyncio.create_task(self._beat(), name="heartbeat"),
            asyncio.create_task(self._drained(), name="drain"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._leave()
            await self._end_sessions()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._agents.aclose()
            await self._crash_speech.aclose()

    async def _drained(self) -> None:
        """Return when the sessions that are on have had their time."""
        await self._draining.wait()
        stopped = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                while self._watchers and not stopped.done():
                    await asyncio.wait({stopped, *self._watchers}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            _log.info("runner_drained_no_longer", sessions=len(self._sessions))
        finally:
            stopped.cancel()

    async def _end_sessions(self) -> None:
        for host in self._sessions.values():
            host.end(EndReason.RUNNER_SHUTDOWN)
        if self._watchers:
            _, still = await asyncio.wait(self._watchers, timeout=self._settings.end_seconds)
            for task in still:
                task.cancel()
            if still:
                _log.error("sessions_not_ended", sessions=self.hosted())
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._outgoing.join()
        except TimeoutError:
            _log.warning("relay_behind_at_the_end", dropped=self._outgoing.qsize())

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
            self._outgoing.task_done()

    async def _beat(self) -> None:
        while True:
            self._say_how_it_is()
            await asyncio.sleep(self._settings.heartbeat_seconds)

    def _say_how_it_is(self) -> None:
        self._send(Heartbeat(active=len(self._sessions), draining=self.draining))

    async def _receive(self) -> None:
        async for message in self._link.messages():
            try:
                self._take(message)
            except Exception as error:  # one session's trouble must not end the others
                _log.exception("relay_message_not_handled", kind=type(message).__name__)
                self._not_taken(message, error)

    def _not_taken(self, message: ToRunner, error: Exception) -> None:
        if isinstance(message, KeepWarm):
            return
        host = self._sessions.get(message.session_id)
        if host is not None:
            host.fault(error)
        elif isinstance(message, AssignSession):
            words = f"the runner could not take the session ({type(error).__name__})"
            self._refuse(message.session_id, FailureCode.RUNNER_UNAVAILABLE, words)

    def _take(self, message: ToRunner) -> None:
        if isinstance(message, AssignSession):
            self._assign(message)
            return
        if isinstance(message, KeepWarm):
            if not self.draining:
                self._agents.keep_warm(message.agents)
            return
        host = self._sessions.get(message.session_id)
        if host is None:
            if not isinstance(message, PeerLeftRoom | ChatTaken):
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
            case ChatPrompt(number=number, text=text):
                host.chat_prompt(number, text)
            case ChatTaken(number=number):
                host.chat_taken(number)
            case CancelSession():
                host.cancel()
            case EndSession(end_reason=reason):
                _log.info("session_end_ordered", session_id=message.session_id, end_reason=reason.value)
                host.end(reason)

    def _assign(self, message: AssignSession) -> None:
        session_id = message.session_id
        if session_id in self._sessions:
            self._send(SessionAccepted(session_id=session_id))
            return
        if (refusal := self._refusal()) is not None:
            self._refuse(session_id, *refusal)
            return
        with structlog.contextvars.bound_contextvars(session_id=session_id):
            host = SessionHost(message, self._parts)
            self._sessions[session_id] = host
            self._counts.hosted += 1
            watcher = asyncio.create_task(self._watch(host), name=f"watch {session_id}")
            self._watchers.add(watcher)
            watcher.add_done_callback(self._watchers.discard)
            host.begin()
        self._send(SessionAccepted(session_id=session_id))

    def _refuse(self, session_id: str, code: FailureCode, reason: str) -> None:
        self._refused[code] += 1
        self._send(SessionRefused(session_id=session_id, failure_code=code, message=reason))

    def _refusal(self) -> tuple[FailureCode, str] | None:
        """Why no session can be taken now, if so. Where it is for want of room, the session may wait."""
        if self.draining:
            return FailureCode.RUNNER_UNAVAILABLE, "the runner is leaving"
        if len(self._sessions) >= self._settings.capacity:
            return (
                FailureCode.CAPACITY_EXCEEDED,
                f"the runner is full: it hosts {len(self._sessions)} sessions",
            )
        if not self._has_memory():
            least = self._settings.min_free_memory_mb
            return (
                FailureCode.CAPACITY_EXCEEDED,
                f"the runner's machine has less than {least} MiB of memory left",
            )
        return None

    def _has_memory(self) -> bool:
        least = self._settings.min_free_memory_mb
        return least == 0 or self._memory() >= least * _MIB

    async def _watch(self, host: SessionHost) -> None:
        await host.over.wait()
        del self._sessions[host.session_id]
