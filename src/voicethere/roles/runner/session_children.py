"""The processes that are one session's agent, one after another: started, spoken to, replaced, stopped.

After a crash another child takes the place of the one before, whose remains are kept until the session is
over. It does not know when that happens or what it means: the machine decides that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from voicethere.roles.runner.agent_child import MessageToSession
from voicethere.roles.runner.agent_events import AgentEvent, Spoken
from voicethere.roles.runner.agent_supply import SessionAgent
from voicethere.roles.runner.runner_parts import RunnerParts
from voicethere.roles.runner.session_environment import environment_of
from voicethere.roles.runner.spoken_stream import Said
from voicethere.wire import ipc
from voicethere.wire.relay import DeployedAgent

_log = structlog.get_logger(__name__)


class SessionChildren:
    """What is sent where no child has come yet is lost: the machine sends nothing before the child is ready.

    `context()` is what the client passed along, as of now. `on_event` and `redact` are as for `AgentChild`.
    `spawn` runs what takes time; `failed(error)` is told that a child could not be started.
    """

    def __init__(
        self,
        session_id: str,
        deployed: DeployedAgent,
        parts: RunnerParts,
        *,
        context: Callable[[], dict[str, Any] | None],
        on_event: Callable[[AgentEvent], None],
        redact: Callable[[str], str],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        failed: Callable[[Exception], None],
    ) -> None:
        self._session_id = session_id
        self._deployed = deployed
        self._parts = parts
        self._context = context
        self._on_event = on_event
        self._redact = redact
        self._spawn = spawn
        self._failed = failed
        self._child: SessionAgent | None = None
        self._crashed: list[SessionAgent] = []
        self._starting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the first child, or another in place of one that crashed."""
        if self._child is not None:
            self._crashed.append(self._child)
            self._child = None
        self._starting = self._spawn(self._start())

    def session_start(self, context: dict[str, Any] | None) -> None:
        """Give the child its session. `context`: what the client passed along."""
        if self._child is not None:
            self._child.session_start(
                ipc.SessionStart(
                    session_id=self._session_id,
                    project_id=self._deployed.project_id,
                    build_id=self._deployed.build_id,
                    env=environment_of(self._deployed, self._session_id, context),
                    customer_context=context,
                )
            )

    def send(self, message: MessageToSession) -> None:
        """Any other message for the session."""
        if self._child is not None:
            self._child.send(message)

    def session_end(self) -> None:
        """The session ends: the child may say so to its agent."""
        if self._child is not None:
            self._child.session_end(self._session_id)

    def answer_to(self, spoken: Spoken) -> Said:
        """How the child that speaks is told what became of it, even when another has taken its place."""
        child = self._child

        def done(interrupted: bool) -> None:
            if child is not None:
                child.send(
                    ipc.SpeechDone(
                        session_id=self._session_id, speech_id=spoken.speech_id, interrupted=interrupted
                    )
                )

        return done

    async def stop(self, grace: float) -> None:
        """Stop what runs or starts, within `grace` seconds, and what is left of crashed children."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._child is not None:
            await self._child.stop(grace)
        for child in self._crashed:
            await child.stop(0)

    async def _start(self) -> None:
        try:
            folder = await self._parts.bundles.folder(self._deployed.bundle_checksum)
            child = self._parts.agents.agent(
                self._session_id,
                self._deployed,
                bundle_dir=folder,
                environment=environment_of(self._deployed, self._session_id, self._context()),
                on_event=self._on_event,
                redact=self._redact,
            )
            self._child = child
            await child.start()
        except Exception as error:
            _log.warning("agent_start_failed", session_id=self._session_id, problem=str(error)[:500])
            self._failed(error)
