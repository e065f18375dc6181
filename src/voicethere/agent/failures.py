"""What follows when the agent's code raised: `error_hook` first, then the runner is told, once per session.

`error_hook` has its seconds and no more; that it failed or overran is a line in the log. A failure after a
session's first is a line in the log too: the session is ending already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from voicethere.agent.invocation import Hook, outcome_of, start_hook
from voicethere.agent.leaving import leave_if_out_of_memory
from voicethere.agent.session import LogFunction, Session
from voicethere.agent.traces import Describer
from voicethere.wire.ipc import AgentError, FromChild


class Failures:
    """Turns exceptions into `AgentError` messages."""

    def __init__(
        self,
        *,
        hooks: Mapping[str, Hook],
        describer: Describer,
        send: Callable[[FromChild], None],
        log: LogFunction,
        error_hook_seconds: float,
        sessions: Callable[[], Iterable[Session]],
    ) -> None:
        self._hooks = hooks
        self._describer = describer
        self._send = send
        self._log = log
        self._error_hook_seconds = error_hook_seconds
        self._sessions = sessions
        self._reporting: set[asyncio.Task[None]] = set()

    async def hook_raised(self, session: Session, hook: str, error: BaseException) -> None:
        """A hook of this session raised."""
        if session.failed:
            self._log_further(session.id, hook, error)
            return
        session.failed = True
        described = self._describer.describe(error)
        await self._run_error_hook(session, hook, error)
        self._send(
            AgentError(session_id=session.id, hook=hook, message=described.message, stack=described.stack)
        )

    async def idle_hook_raised(
        self, session: Session, error: BaseException, answer: Callable[[str, str], None]
    ) -> None:
        """The session ends as idle all the same, so the runner is told first, within the hook's grace."""
        described = self._describer.describe(error)
        answer(described.message, described.stack)
        await self._run_error_hook(session, "on_idle_timeout", error)

    def background(self, session_id: str | None, kind: str, error: BaseException) -> None:
        """Something that no hook waits for raised. Without a session every session is meant."""
        leave_if_out_of_memory(error)
        task = asyncio.get_running_loop().create_task(self._background(session_id, kind, error))
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)

    async def reported(self) -> None:
        """Return when the background failures found so far have been told."""
        await asyncio.gather(*self._reporting)

    async def _background(self, session_id: str | None, kind: str, error: BaseException) -> None:
        if session_id is None:
            await self._everywhere(kind, error)
            return
        for session in self._sessions():
            if session.id == session_id:
                await self.hook_raised(session, kind, error)
                return
        self._log_further(session_id, kind, error)

    async def _everywhere(self, kind: str, error: BaseException) -> None:
        described = self._describer.describe(error)
        concerned = [session for session in self._sessions() if not session.failed]
        for session in concerned:
            session.failed = True
        await asyncio.gather(*(self._run_error_hook(session, kind, error) for session in concerned))
        self._send(AgentError(session_id=None, hook=kind, message=described.message, stack=described.stack))

    async def _run_error_hook(self, session: Session, hook: str, error: BaseException) -> None:
        error_hook = self._hooks.get("error_hook")
        if error_hook is None:
            return
        task = start_hook(error_hook, session.error_context(hook, error), session.id)
        try:
            second = await outcome_of(task, self._error_hook_seconds)
        except TimeoutError:
            self._log(
                "error",
                f"error_hook took longer than its {self._error_hook_seconds:g} s and was given up",
                None,
                session.id,
            )
            return
        if second is not None:
            described = self._describer.describe(second)
            self._log(
                "error", f"error_hook raised {described.message}", {"stack": described.stack}, session.id
            )

    def _log_further(self, session_id: str, hook: str, error: BaseException) -> None:
        described = self._describer.describe(error)
        self._log(
            "error",
            f"{hook} raised after the session had failed or ended: {described.message}",
            {"stack": described.stack},
            session_id,
        )
