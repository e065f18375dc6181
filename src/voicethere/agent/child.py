"""The agent's child process: loads the bundle, runs its hooks, answers the runner.

The sandbox calls `main` with the IPC stream's descriptor. The bundle is imported before the event loop
runs, as any Python module is; from then on the loop belongs to the runner's pings and the agent's `async`
hooks. The process ends when the stream closes.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import sys
from types import MappingProxyType
from typing import TextIO

import msgspec

from voicethere.agent.background import BackgroundFailures
from voicethere.agent.channel import Channel
from voicethere.agent.contexts import AgentStartContext
from voicethere.agent.definition import Agent
from voicethere.agent.environment import SessionVariables
from voicethere.agent.failures import Failures
from voicethere.agent.invocation import outcome_of, start_hook
from voicethere.agent.leaving import exit_status, leave, leave_if_out_of_memory
from voicethere.agent.link import RunnerLink
from voicethere.agent.loading import LoadFailure, load_agent
from voicethere.agent.process import this_process
from voicethere.agent.session import Session
from voicethere.agent.traces import Describer
from voicethere.wire import ipc


def main(channel_fd: int) -> None:
    """Run one agent until the runner lets go of it. Never returns: the process ends here.

    Args:
        channel_fd: a stream socket of frames (see `wire.ipc`); `LoadAgent` comes first.
    """
    _prepare_process()
    try:
        _run(Channel(channel_fd))
    except SystemExit as error:  # a hook or a task called sys.exit: its wish is granted
        leave(exit_status(error))
    except KeyboardInterrupt:
        leave(130)
    except MemoryError as error:
        leave_if_out_of_memory(error)
    except (msgspec.DecodeError, ipc.FrameTooLong) as error:
        print(f"the runner sent what is no message: {error}", file=sys.stderr)
        leave(1)
    leave(0)


def _run(channel: Channel) -> None:
    first = channel.receive_first()
    if not isinstance(first, ipc.LoadAgent):
        raise msgspec.DecodeError(f"{type(first).__name__} came before LoadAgent")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    link = RunnerLink(channel.send, loop)
    this_process.link = link
    describer = Describer(first.bundle_dir)
    try:
        agent = load_agent(first.bundle_dir)
    except LoadFailure as failure:
        leave_if_out_of_memory(failure.cause)
        _load_failed(channel, describer, failure.stage, failure.cause)
    else:
        child = Child(loop, channel, link, describer, agent, first)
        loop.run_until_complete(child.serve())


class Child:
    """The loaded agent and its sessions, on one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: Channel,
        link: RunnerLink,
        describer: Describer,
        agent: Agent,
        load: ipc.LoadAgent,
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._link = link
        self._describer = describer
        self._agent = agent
        self._load = load
        self._sessions: dict[str, Session] = {}
        self._session_tasks: set[asyncio.Task[None]] = set()
        self._agent_started = asyncio.Event()
        self._start_hook: asyncio.Task[None] | None = None
        self._variables = SessionVariables(self._note)
        self._failures = Failures(
            hooks=agent.hooks,
            describer=describer,
            send=channel.send,
            log=link.log,
            error_hook_seconds=load.error_hook_seconds,
            sessions=lambda: list(self._sessions.values()),
        )
        link.report_failures(self._failures.background)
        self._background = BackgroundFailures(
            loop,
            report=self._failures.background,
            note=lambda words: self._note("warn", words),
            running_hook=self._running_hook,
        )

    async def serve(self) -> None:
        """Run `on_agent_start`, then whatever the runner sends, until the process ends."""
        self._background.install()
        self._loop.add_reader(self._channel.fileno(), self._receive)
        hook = self._agent.hooks.get("on_agent_start")
        if hook is not None:
            context = AgentStartContext(env=MappingProxyType(self._load.env))
            self._start_hook = start_hook(hook, context, None)
            error = await outcome_of(self._start_hook)
            self._start_hook = None
            if error is not None:
                _load_failed(self._channel, self._describer, "on_agent_start", error)
        self._channel.send(
            ipc.AgentLoaded(hooks=list(self._agent.hooks), commands=list(self._agent.commands))
        )
        self._agent_started.set()
        self._describer.warm_up()  # the runner has its answer: nobody waits for this
        await self._loop.create_future()  # the process ends in `leave`

    def _receive(self) -> None:
        try:
            for message in self._channel.receive_now():
                self._handle(message)
        except (msgspec.DecodeError, ipc.FrameTooLong) as error:
            print(f"the runner sent what is no message: {error}", file=sys.stderr)
            leave(1)

    def _handle(self, message: ipc.ToChild) -> None:
        match message:
            case ipc.Ping():
                self._channel.send(ipc.Pong(n=message.n))
            case ipc.SpeechDone():
                self._link.speech_done(message)
            case ipc.SessionStart():
                self._start_session(message)
            case ipc.LoadAgent():
                self._note("warn", "a second LoadAgent was ignored")
            case _:
                session = self._sessions.get(message.session_id)
                if session is None:
                    kind = type(message).__name__
                    self._note("warn", f"{kind} for session {message.session_id!r}, which is not here")
                else:
                    session.accept(message)

    def _start_session(self, start: ipc.SessionStart) -> None:
        if start.session_id in self._sessions:
            self._note("warn", f"session {start.session_id!r} was started twice")
            return
        if not self._sessions:
            self._variables.show(start.env)
        session = Session(
            start,
            hooks=self._agent.hooks,
            send=self._channel.send,
            log=self._link.log,
            failures=self._failures,
            on_end=lambda session: self._link.session_ends(session.id),
        )
        self._sessions[session.id] = session
        self._link.session_began(session.id)
        task = self._loop.create_task(self._run_session(session))
        self._session_tasks.add(task)
        task.add_done_callback(self._session_tasks.discard)

    async def _run_session(self, session: Session) -> None:
        await session.run(self._agent_started)
        await self._link.streams_closed(session.id)
        self._background.settle(session.id)
        await self._failures.reported()
        del self._sessions[session.id]
        self._link.session_over(session.id)
        self._channel.send(ipc.SessionEndAck(session_id=session.id))

    def _running_hook(self, session_id: str | None) -> asyncio.Task[None] | None:
        if session_id is None:
            return self._start_hook
        session = self._sessions.get(session_id)
        return None if session is None else session.running_hook

    def _note(self, level: str, words: str) -> None:
        self._link.log(level, words, None, None)


def _load_failed(channel: Channel, describer: Describer, stage: str, error: BaseException) -> None:
    described = describer.describe(error)
    channel.send(ipc.AgentLoadFailed(stage=stage, message=described.message, stack=described.stack))
    leave(1)


def _prepare_process() -> None:
    """What is printed comes out line by line; a crash of the interpreter itself leaves a trace on stderr."""
    sys.stdout = _line_buffered(1) or sys.stdout
    sys.stderr = _line_buffered(2) or sys.stderr
    try:
        faulthandler.enable(all_threads=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the platform to handle
    except (OSError, ValueError, RuntimeError):
        pass  # no stderr, or not the main thread: neither is worth not starting for


def _line_buffered(fd: int) -> TextIO | None:
    try:
        return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    except OSError:
        return None  # the sandbox left this stream closed
