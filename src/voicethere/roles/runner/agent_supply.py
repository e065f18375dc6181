"""Gives each session an agent: a child of its own, or a seat in one that its deployment's sessions share.

A session's host sees no difference (`SessionAgent`). A child of its own may be one that was started ahead
(`warm_children`). A shared child crashes for all its sessions; a handler that raises does so for its own. It
is started for the first session and stopped a moment after the last. Knows nothing of what a crash means for
a session.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from voicethere.core.ports import Clock, SandboxLimits, SandboxPort
from voicethere.roles.runner.agent_child import AgentChild, AgentEvent, MessageToSession
from voicethere.roles.runner.agent_children import AgentChildren
from voicethere.roles.runner.agent_watchdog import AgentTimeouts
from voicethere.roles.runner.own_child import OwnChild
from voicethere.roles.runner.session_environment import OF_ONE_SESSION
from voicethere.roles.runner.shared_child import SharedChild
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.roles.runner.warm_children import WarmChildren, WarmRules
from voicethere.wire import ipc
from voicethere.wire.relay import DeployedAgent

_log = structlog.get_logger(__name__)

_Key = tuple[str, str, tuple[tuple[str, str], ...]]


class SessionAgent(Protocol):
    """An agent's process, as far as one session is concerned. The methods are those of `AgentChild`."""

    async def start(self) -> None: ...

    def session_start(self, message: ipc.SessionStart) -> None: ...

    def send(self, message: MessageToSession) -> None: ...

    def session_end(self, session_id: str) -> None: ...

    async def stop(self, grace: float) -> None: ...


class AgentSupply:
    """One per runner. `linger_seconds`: how long a shared child waits for its next session.

    `has_room` is asked before a child is started that no session has asked for.
    """

    def __init__(
        self,
        *,
        sandbox: SandboxPort,
        clock: Clock,
        limits: SandboxLimits,
        bundles: UnpackedBundles,
        timeouts: AgentTimeouts | None = None,
        linger_seconds: float = 5.0,
        warm: WarmRules | None = None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._children = AgentChildren(sandbox=sandbox, clock=clock, limits=limits, timeouts=timeouts)
        self._warm = WarmChildren(
            children=self._children, bundles=bundles, rules=warm or WarmRules(), has_room=has_room
        )
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

        def make(environment: Mapping[str, str], on_event: Callable[[AgentEvent], None]) -> AgentChild:
            return self._children.make(
                bundle_dir=bundle_dir, environment=environment, on_event=on_event, redact=redact
            )

        if not deployed.shared_child_per_session:
            return OwnChild(
                take_warm=functools.partial(self._warm.take, deployed),
                make_fresh=functools.partial(make, environment),
                on_event=on_event,
            )
        common = {name: value for name, value in environment.items() if name not in OF_ONE_SESSION}
        key = (deployed.project_id, deployed.build_id, tuple(sorted(common.items())))
        shared = self._shared.get(key)
        if shared is None or not shared.open:
            shared = self._shared[key] = SharedChild(
                functools.partial(make, common),
                project_id=deployed.project_id,
                linger_seconds=self._linger_seconds,
                unused=self._let_go,
            )
            self._in_use.add(shared)
        return shared.seat(session_id, on_event)

    def keep_warm(self, agents: Sequence[DeployedAgent]) -> None:
        """Have children of these agents ready before their sessions, and of no others.

        Not of those whose sessions share a child.
        """
        self._warm.keep(agents)

    @property
    def children(self) -> int:
        """How many processes of agents are alive."""
        return self._children.alive

    @property
    def warm(self) -> WarmChildren:
        """Those that are started ahead, to be counted."""
        return self._warm

    async def aclose(self) -> None:
        """Stop the shared and the warm children; those of one session are their hosts' to stop."""
        await self._warm.aclose()
        for shared in tuple(self._in_use):
            self._let_go(shared)
        while self._stopping:
            await asyncio.wait(self._stopping)

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
