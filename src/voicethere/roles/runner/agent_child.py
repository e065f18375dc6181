"""The runner's end of one agent child: starts it, talks to it, watches it, and says what became of it.

Nothing that the child does can hold up the runner: what goes to it waits in a bounded outbox, what comes
from it is bounded, checked, and of sessions that it was given, or is dropped with a line in its log. What a
crash means for a session is decided elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

import msgspec
import structlog

from voicethere.core.ports import ChildExit, ChildProcess, ChildSpec, Clock, SandboxLimits, SandboxPort
from voicethere.errors.causes import Crash, CrashKind
from voicethere.roles.runner.agent_events import AgentError, AgentEvent, ChildGone, LogLine
from voicethere.roles.runner.agent_inbox import Inbox
from voicethere.roles.runner.agent_journal import Journal
from voicethere.roles.runner.agent_outbox import Outbox
from voicethere.roles.runner.agent_watchdog import AgentTimeouts, Watchdog
from voicethere.wire import ipc

__all__ = [
    "AgentChild",
    "AgentError",
    "AgentEvent",
    "AgentSpec",
    "AgentTimeouts",
    "ChildGone",
    "LogLine",
    "MessageToSession",
]

_log = structlog.get_logger(__name__)

ENTRY_POINT = "voicethere.agent.child:main"

MessageToSession = (
    ipc.SpeechEventMessage | ipc.DataChannelMessage | ipc.DataChannelBinary | ipc.IdleTimeout | ipc.SpeechDone
)

_DRAIN_SECONDS = 1.0
"""How long what a dead process had sent may take to be read."""
_FAIR_SHARE = 200
"""Frames that are handled before the runner's other work gets a turn."""
_DROPPED_BEFORE_PAUSE = 100
_PAUSE_SECONDS = 0.01


class AgentSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Which agent: the folder of its unpacked bundle, and the whole of its environment."""

    bundle_dir: Path
    environment: Mapping[str, str]
    limits: SandboxLimits = SandboxLimits()


class AgentChild:
    """One child, from `start` to `stop`. Not reusable.

    `on_event` is called in the event loop, in order; after `ChildGone` never again. `redact` is applied to
    every log line. All methods but `start` and `stop` return at once.

    Example:
        >>> child = AgentChild(sandbox, spec=spec, on_event=events.append, clock=clock, redact=redactor.text)
        >>> await child.start()
        >>> child.session_start(start)
        >>> await child.stop(grace=1.0)
    """

    def __init__(
        self,
        sandbox: SandboxPort,
        *,
        spec: AgentSpec,
        on_event: Callable[[AgentEvent], None],
        clock: Clock,
        redact: Callable[[str], str],
        limits: AgentTimeouts | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._spec = spec
        self._on_event = on_event
        self._clock = clock
        self._timeouts = limits or AgentTimeouts()
        self._journal = Journal(write=self._emit, clock=clock, redact=redact)
        self._watchdog = Watchdog(self._timeouts)
        self._outbox = Outbox()
        self._inbox = Inbox(emit=self._emit, journal=self._journal, watchdog=self._watchdog, clock=clock)
        self._process: ChildProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._crash: Crash | None = None
        self._started = False
        self._stopping = False
        self._gone = False

    @property
    def pid(self) -> int | None:
        """The process's id, as this machine counts; None before `start` is done."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs, as far as is known."""
        return self._process is not None and not self._gone

    async def start(self) -> None:
        """Return when the process runs; `AgentLoaded` or `ChildGone` says how the bundle took it.

        Raises:
            SandboxUnavailable: no process could be started; there will be no event.
            RuntimeError: it was started before.
        """
        if self._started:
            raise RuntimeError("an AgentChild is started once")
        self._started = True
        environment = dict(self._spec.environment)
        self._send(
            ipc.LoadAgent(
                bundle_dir=str(self._spec.bundle_dir),
                env=environment,
                error_hook_seconds=self._timeouts.error_hook,
            )
        )
        process = await self._sandbox.start(
            ChildSpec(
                entry_point=ENTRY_POINT,
                environment=environment,
                read_only=[self._spec.bundle_dir],
                limits=self._spec.limits,
            )
        )
        self._process = process
        self._watchdog.started()
        self._supervisor = asyncio.create_task(self._supervise(process), name=f"agent child {process.pid}")
        if self._stopping:
            process.kill()

    def session_start(self, message: ipc.SessionStart) -> None:
        """Give the child a session; answered by `SessionStartAck`, or an `AgentError`."""
        self._inbox.session_given(message.session_id)
        self._watchdog.session_starting(message.session_id)
        self._send(message)

    def send(self, message: MessageToSession) -> None:
        """Send what concerns a session that the child has."""
        if isinstance(message, ipc.IdleTimeout):
            self._inbox.idle_asked(message.session_id)
        self._send(message)

    def session_end(self, session_id: str) -> None:
        """End a session; answered by `SessionEndAck`. A session that the child does not have is ignored."""
        if self._inbox.ending(session_id):
            self._watchdog.session_ending(session_id)
            self._send(ipc.SessionEnd(session_id=session_id))

    async def answers(self, seconds: float) -> bool:
        """Whether the child's event loop answers within so many seconds; False also where it is gone."""
        number = self._watchdog.ping_now()
        self._send(ipc.Ping(n=number))
        try:
            async with asyncio.timeout(seconds):
                while not self._gone and self._watchdog.unanswered(number):
                    self._inbox.ponged.clear()
                    await self._inbox.ponged.wait()
        except TimeoutError:
            return False
        return not self._gone

    async def stop(self, grace: float) -> None:
        """End the sessions that are not ended, within `grace` seconds, then the process.

        Returns when nothing of it is left; `ChildGone` was delivered by then. May be called again, and in
        whatever state: a stop that was cancelled has killed the process all the same.

        Raises:
            Exception: the sandbox could not remove what the process left behind.
        """
        self._stopping = True
        if self._process is None or self._supervisor is None:
            return
        try:
            if not self._gone and grace > 0:
                for session_id in self._inbox.sessions:
                    self.session_end(session_id)
                await self._sessions_ended(grace)
        finally:
            self._process.kill()
        await asyncio.shield(self._supervisor)

    # ------------------------------------------------------------------ to the child

    def _send(self, message: ipc.ToChild) -> None:
        if not self._gone and not self._outbox.put(ipc.encode(message)):
            self._unresponsive("did not read what it was sent")

    async def _transmit(self, process: ChildProcess) -> None:
        while True:
            await process.send(await self._outbox.take())

    # ------------------------------------------------------------------ from the child

    def _emit(self, event: AgentEvent) -> None:
        if self._gone:
            return
        self._gone = isinstance(event, ChildGone)
        try:
            self._on_event(event)
        except Exception:  # the next event may be the one that says why: it must come through
            _log.exception("agent_event_not_handled", agent_event=type(event).__name__)

    async def _receive(self, process: ChildProcess) -> None:
        handled = 0
        try:
            async for frame in process.frames():
                self._handle(ipc.decode_from_child(frame))
                handled += 1
                if self._inbox.dropped >= _DROPPED_BEFORE_PAUSE:
                    self._inbox.dropped = 0
                    await asyncio.sleep(_PAUSE_SECONDS)
                elif handled % _FAIR_SHARE == 0:
                    await asyncio.sleep(0)
        except msgspec.DecodeError as error:
            self._unresponsive(f"sent what is no message of the SDK ({str(error)[:200]})")

    def _handle(self, message: ipc.FromChild) -> None:
        if isinstance(message, ipc.AgentLoadFailed):
            self._load_failed(message)
        else:
            self._inbox.take(message)

    def _load_failed(self, message: ipc.AgentLoadFailed) -> None:
        words = {
            "import": "agent.py could not be imported: ",
            "on_agent_start": "on_agent_start raised ",
        }.get(message.stage, "")
        if self._crash is None and not self._inbox.loaded:
            self._crash = Crash(
                kind=CrashKind.LOAD_FAILURE,
                message=words + message.message[: ipc.MAX_ERROR_MESSAGE_CHARS],
                stack=message.stack[-ipc.MAX_STACK_CHARS :],
            )

    async def _read_output(self, process: ChildProcess) -> None:
        handled = 0
        async for line in process.output():
            self._journal.printed(line)
            handled += 1
            if handled % _FAIR_SHARE == 0:
                await asyncio.sleep(0)

    # ------------------------------------------------------------------ supervision

    async def _supervise(self, process: ChildProcess) -> None:
        reading = [
            asyncio.create_task(self._guarded(self._receive(process)), name="agent child: messages"),
            asyncio.create_task(self._guarded(self._read_output(process)), name="agent child: output"),
        ]
        working = [
            asyncio.create_task(self._guarded(self._transmit(process)), name="agent child: sending"),
            asyncio.create_task(self._guarded(self._watch()), name="agent child: watchdog"),
        ]
        try:
            ended = await process.wait()
            await asyncio.wait(reading, timeout=_DRAIN_SECONDS)
            self._inbox.close()
            self._journal.close()
            # First of all: a client waits for it.
            self._emit(ChildGone(crash=None if self._stopping else self._crash_of(ended)))
        finally:
            for task in (*reading, *working):
                task.cancel()
            await asyncio.gather(*reading, *working, return_exceptions=True)
        await process.aclose()

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:
            _log.exception("agent_child_supervision_failed")
            self._unresponsive(f"could not be supervised any more ({type(error).__name__}: {error})")

    async def _watch(self) -> None:
        tick = self._timeouts.tick
        before = self._clock.monotonic()
        while True:
            await asyncio.sleep(tick)
            now = self._clock.monotonic()
            # A runner that was held up itself has not read the answers yet.
            self._watchdog.pass_time(min(now - before, 4 * tick))
            before = now
            late = self._watchdog.overdue()
            if late is not None:
                self._unresponsive(late)
                return
            ping = self._watchdog.ping_due()
            if ping is not None:
                self._send(ipc.Ping(n=ping))

    async def _sessions_ended(self, seconds: float) -> None:
        assert self._supervisor is not None
        ended = asyncio.create_task(self._inbox.all_ended.wait())
        try:
            await asyncio.wait(
                {ended, self._supervisor}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ended.cancel()

    def _unresponsive(self, words: str) -> None:
        if self._crash is None:
            self._crash = Crash(kind=CrashKind.UNRESPONSIVE, message=f"the agent {words}")
        if self._process is not None:
            self._process.kill()

    def _crash_of(self, ended: ChildExit) -> Crash:
        lines = self._journal.last_lines
        if self._crash is not None:
            return msgspec.structs.replace(self._crash, last_log_lines=lines)
        if ended.out_of_memory or ended.exit_status == ipc.OUT_OF_MEMORY_STATUS:
            limit = self._spec.limits.memory_bytes // (1024 * 1024)
            return Crash(
                kind=CrashKind.OUT_OF_MEMORY,
                message=f"its limit is {limit} MiB",
                exit_status=ended.exit_status,
                signal=ended.signal,
                last_log_lines=lines,
            )
        # The sentence for these is the catalog's own: there is nothing to add to it.
        if ended.signal is not None:
            return Crash(kind=CrashKind.SIGNAL, signal=ended.signal, last_log_lines=lines)
        return Crash(kind=CrashKind.EXITED, exit_status=ended.exit_status, last_log_lines=lines)
