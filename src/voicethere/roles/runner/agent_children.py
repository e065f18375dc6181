"""Makes the agent children of a runner, all alike, and counts those that are alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

from voicethere.core.ports import Clock, SandboxLimits, SandboxPort
from voicethere.roles.runner.agent_child import AgentChild, AgentEvent, AgentSpec
from voicethere.roles.runner.agent_watchdog import AgentTimeouts


class AgentChildren:
    """`make` gives a child that is yet to be started; who asked for it stops it."""

    def __init__(
        self,
        *,
        sandbox: SandboxPort,
        clock: Clock,
        limits: SandboxLimits,
        timeouts: AgentTimeouts | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._clock = clock
        self._limits = limits
        self._timeouts = timeouts
        self._made: weakref.WeakSet[AgentChild] = weakref.WeakSet()

    def make(
        self,
        *,
        bundle_dir: Path,
        environment: Mapping[str, str],
        on_event: Callable[[AgentEvent], None],
        redact: Callable[[str], str],
    ) -> AgentChild:
        """A child; `environment` is the whole of its own, `on_event` and `redact` are as for `AgentChild`."""
        child = AgentChild(
            self._sandbox,
            spec=AgentSpec(bundle_dir=bundle_dir, environment=environment, limits=self._limits),
            on_event=on_event,
            clock=self._clock,
            redact=redact,
            limits=self._timeouts,
        )
        self._made.add(child)
        return child

    @property
    def alive(self) -> int:
        """How many processes run now: sessions' own, shared and warm ones."""
        return sum(child.alive for child in self._made)
