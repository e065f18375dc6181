"""Gives each session an agent: a child of its own, or a seat in one that its deployment's sessions share.

A session's host sees no difference (`SessionAgent`). A shared child crashes for all its sessions; a handler
that raises does so for its own. It is started for the first session and stopped a moment after the last.
Knows nothing of what a crash means for a session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from voicethere.core.ports import Clock, SandboxLimits, SandboxPort
from voicethere.roles.runner.agent_child import AgentChild, AgentEvent, AgentSpec, MessageToSession
from voicethere.roles.runner.agent_watchdog import AgentTimeouts
from voicethere.roles.runner.shared_child import SharedChild
from voicethere.wire import ipc
from voicethere.wire.relay import DeployedAgent

_log = structlog.get_logger(__name__)

_OF_ONE_SESSION = frozenset({ipc.ENV_SESSION_ID, ipc.ENV_CUSTOMER_CONTEXT})
"""Not in the environment of a shared child: each session's `ctx.env` has its own."""

_Key = tuple[str, str, tuple[tuple[str, str], ...]]


class SessionAgent(Protocol):
    """An agent's process, as far as one session is concerned. The methods are those of `AgentChild`."""

    async def start(self) -> None: ...

    def session_start(self, message: ipc.SessionStart) -> None: ...

    def send(self, message: MessageToSession) -> None: ...

    def session_end(self, session_id: str) -> None: ...

    async def stop(self, grace: float) -> None: ...


class AgentSupply:
    """One per runner. `linger_seconds`: how long a shared child waits for its next session."""

    def __init__(
        self,
        *,
        sandbox: SandboxPort,
        clock: Clock,
        limits: SandboxLimits,
        timeouts: AgentTimeouts | None = None,
        linger_seconds: float = 5.0,
    ) -> None:
        self._sandbox = sandbox
        self._clock = clock
        self._limits = limits
        self._timeouts = timeouts
        self._linger_seconds = linger_seconds
        self._shared: dict[_Key, SharedChild] = {}
        self._in_use: set[SharedChild] = set()
        self._stopping: set[asyncio.Task[None]] = set()

    def agent(
        self,
        session_id: str,
        deployed: DeployedAgent,
        *,
        bundle_dir: Path,
        environment: dict[str, str],
        on_event: Callable[[AgentEvent], None],
        redact: Callable[[str], str],
    ) -> SessionAgent:
        """The agent for one session, yet to be started. `environment` is the session's whole one.

        `on_event` and `redact` are as for `AgentChild`; `on_event` is not called after `ChildGone` or `stop`.
        """
        if not deployed.shared_child_per_session:
            return self._child(bundle_dir, environment, on_event, redact)
        common = {name: value for name, value in environment.items() if name not in _OF_ONE_SESSION}
        key = (deployed.project_id, deployed.build_id, tuple(sorted(common.items())))
        shared = self._shared.get(key)
        if shared is None or not shared.open:
            shared = self._shared[key] = SharedChild(
                lambda event: self._child(bundle_dir, common, event, redact),
                project_id=deployed.project_id,
                linger_seconds=self._linger_seconds,
                unused=self._let_go,
            )
            self._in_use.add(shared)
        return shared.seat(session_id, on_event)

    async def aclose(self) -> None:
        """Stop the shared children; those of one session are their hosts' to stop."""
        for shared in tuple(self._in_use):
            self._let_go(shared)
        while self._stopping:
            await asyncio.wait(self._stopping)

    def _child(
        self,
        bundle_dir: Path,
        environment: dict[str, str],
        on_event: Callable[[AgentEvent], None],
        redact: Callable[[str], str],
    ) -> AgentChild:
        return AgentChild(
            self._sandbox,
            spec=AgentSpec(bundle_dir=bundle_dir, environment=environment, limits=self._limits),
            on_event=on_event,
            clock=self._clock,
            redact=redact,
            limits=self._timeouts,
        )

    def _let_go(self, unused: SharedChild) -> None:
        # Where it crashed, another may have taken its place: that one stays.
        self._shared = {key: shared for key, shared in self._shared.items() if shared is not unused}
        self._in_use.discard(unused)
        task = asyncio.create_task(unused.stop(), name="stop a shared agent child")
        self._stopping.add(task)
        task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._stopping.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("shared_child_not_stopped", problem=str(error), exc_info=error)
