"""Verifying a bundle: load it as a session would, in the same sandbox, and say what it registers.

The bundle's code runs, up to the end of `on_agent_start`, with nothing of a session or project around it.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from voicethere.core.bundle import Bundle, InvalidBundle, read_bundle
from voicethere.core.clock import SystemClock
from voicethere.core.ports import BundleReport, Clock, Recognizer, SandboxLimits, SandboxPort
from voicethere.errors.causes import Crash
from voicethere.errors.convert import crash_words
from voicethere.errors.redact import Redactor
from voicethere.roles.runner.agent_child import (
    AgentChild,
    AgentEvent,
    AgentSpec,
    AgentTimeouts,
    ChildGone,
    LogLine,
)
from voicethere.roles.runner.command_words import command_remarks
from voicethere.roles.runner.unpacked import unpack
from voicethere.wire.ipc import AgentLoaded

_MAX_LINES = 100


class SandboxBundleVerifier:
    """Implements `voicethere.core.ports.BundleVerifier`.

    `scratch_dir` takes a folder for each bundle, for as long as its verification lasts; children must be
    able to read below it. `recognizer` is asked whether it knows the agent's commands; None asks nobody.
    """

    def __init__(
        self,
        sandbox: SandboxPort,
        scratch_dir: Path,
        *,
        clock: Clock | None = None,
        timeouts: AgentTimeouts | None = None,
        limits: SandboxLimits | None = None,
        recognizer: Recognizer | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._scratch_dir = scratch_dir
        self._clock = clock or SystemClock()
        self._timeouts = timeouts or AgentTimeouts()
        self._limits = limits or SandboxLimits()
        self._recognizer = recognizer

    async def verify(self, data: bytes) -> BundleReport:
        """Report on a bundle; a bad one is a report with a `problem`, redacted like any error.

        Raises:
            SandboxUnavailable: no child could be started.
            OSError: the bundle could not be unpacked.
        """
        try:
            bundle = await asyncio.to_thread(read_bundle, data)
        except InvalidBundle as error:
            return BundleReport(problem=str(error))
        folder = await asyncio.to_thread(self._unpacked, bundle)
        try:
            return await self._load(folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _unpacked(self, bundle: Bundle) -> Path:
        self._scratch_dir.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="verify-", dir=self._scratch_dir))
        try:
            unpack(bundle, folder)
            folder.chmod(0o755)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    async def _load(self, folder: Path) -> BundleReport:
        redactor = Redactor()
        outcome: asyncio.Future[AgentLoaded | Crash | None] = asyncio.get_running_loop().create_future()
        lines: list[str] = []

        def on_event(event: AgentEvent) -> None:
            if isinstance(event, LogLine) and len(lines) < _MAX_LINES:
                lines.append(f"{event.level}: {event.message}")
            elif isinstance(event, (AgentLoaded, ChildGone)) and not outcome.done():
                outcome.set_result(event if isinstance(event, AgentLoaded) else event.crash)

        child = AgentChild(
            self._sandbox,
            spec=AgentSpec(bundle_dir=folder, environment={}, limits=self._limits),
            on_event=on_event,
            clock=self._clock,
            redact=redactor.text,
            limits=self._timeouts,
        )
        try:
            await child.start()
            result = await outcome
        finally:
            await child.stop(0)
        if isinstance(result, AgentLoaded):
            remarks = await command_remarks(self._recognizer, result.commands)
            return BundleReport(
                hooks=result.hooks,
                commands=result.commands,
                log_lines=lines,
                remarks=tuple(redactor.text(remark) for remark in remarks),
            )
        if result is None:
            return BundleReport(problem="the verification was stopped", log_lines=lines)
        return BundleReport(
            problem=redactor.text(result.message or crash_words(result)),
            stack=None if result.stack is None else redactor.text(result.stack),
            log_lines=lines,
        )
