"""The runner as a child process of `voicethere up`: started, watched, and started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

import structlog

from voicethere.cli.configuration.settings import described
from voicethere.cli.configuration.sources import CONFIG_VARIABLE
from voicethere.cli.layout import DataLayout

_STOP_SECONDS = 15.0
_RESTART_PAUSE_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class RunnerProcess:
    """One runner at a time. Each start has an id of its own: what hosted under an old id is over for good.

    `died` is called with the id of a runner whose process has ended.
    """

    def __init__(
        self,
        layout: DataLayout,
        *,
        options: Sequence[str],
        leaving: asyncio.Event,
        hurried: asyncio.Event,
        died: Callable[[str], None],
        drain_seconds: float = 0.0,
    ) -> None:
        """`options` are further ones of `voicethere serve runner`; `drain_seconds` is how long it may let
        sessions go on at the end, unless somebody hurries."""
        self._hurried = hurried
        self._drain_seconds = drain_seconds
        self._layout = layout
        self._options = options
        self._leaving = leaving
        self._died = died
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._runner_id = ""

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start a runner."""
        self._runner_id = f"runner-{os.getpid()}-{next(self._numbers)}"
        command = [
            sys.executable,
            "-m",
            "voicethere.cli.main",
            "serve",
            "runner",
            f"--data-dir={self._layout.root}",
            f"--runner-id={self._runner_id}",
            f"--log-file={self._layout.logs / 'runner.log'}",
            "--until-stdin-closes",
            *self._options,
        ]
        # Its own session: Ctrl-C in the terminal is for us, and we end the runner in order.
        with (self._layout.logs / "runner.err").open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
                env=_environment(),
            )

    async def keep(self) -> None:
        """Start it again when it dies: what it hosted is over, what comes next is not."""
        while True:
            process = self._process
            assert process is not None
            status = await asyncio.to_thread(process.wait)
            if self._leaving.is_set():
                return
            _log.error("runner_died", runner_id=self._runner_id, status=status)
            self._died(self._runner_id)
            assert process.stdin is not None
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), _RESTART_PAUSE_SECONDS)
                return
            self.start()

    def hangs(self, runner_id: str) -> None:
        """It says nothing any more, and its sessions are lost: end it, so that the next one can start."""
        if runner_id == self._runner_id and self._process is not None:
            _log.error("runner_killed", runner_id=runner_id, reason="it says nothing any more")
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """End it in order, or by force where it takes too long."""
        self._leaving.set()
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        hurrying = asyncio.create_task(self._hurry(process), name="runner hurry")
        patience = self._drain_seconds + _STOP_SECONDS
        try:
            await asyncio.to_thread(process.wait, patience)
        except subprocess.TimeoutExpired:
            _log.error("runner_killed", reason=f"it did not end within {patience:g} s")
            process.kill()
            await asyncio.to_thread(process.wait)
        hurrying.cancel()
        assert process.stdin is not None
        process.stdin.close()

    async def _hurry(self, process: subprocess.Popen[bytes]) -> None:
        await self._hurried.wait()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)


def _environment() -> dict[str, str]:
    """Ours, without the settings in it: they are for us (a port, say), and ours to pass on."""
    settings = {CONFIG_VARIABLE, *(setting.variable for setting in described().values())}
    return {name: value for name, value in os.environ.items() if name not in settings}
