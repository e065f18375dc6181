"""The platform's roles as processes of their own, on one data directory: started, killed, started again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence

import msgspec

from voicethere.testing.platform_process import RunningPlatform

START_SECONDS = 60.0


class Role:
    """One role's process."""

    def __init__(self, name: str, data_dir: str) -> None:
        self.name = name
        self.data_dir = data_dir
        self.options: tuple[str, ...] = ()
        self.said: dict[str, str] = {}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self, *options: str) -> None:
        """Return once it serves."""
        self.options = options or self.options
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "voicethere.cli.main",
            "serve",
            self.name,
            f"--data-dir={self.data_dir}",
            f"--log-file={self.data_dir}/{self.name}.log",
            "--json",
            *self.options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await self._process.stdout.readline()
        self.said = msgspec.json.decode(line)

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        async with asyncio.timeout(START_SECONDS):
            await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode


class RolesApart(msgspec.Struct, frozen=True):
    """Control plane, session service and runner; `control` and `sessions` say where to reach them."""

    control: Role
    sessions: Role
    runner: Role

    @property
    def control_plane(self) -> RunningPlatform:
        """For an `Operator`."""
        return self._at(self.control)

    @property
    def session_service(self) -> RunningPlatform:
        """For clients."""
        return self._at(self.sessions)

    def _at(self, role: Role) -> RunningPlatform:
        return RunningPlatform(
            base_url=role.said["base_url"],
            api_key=self.control.said["api_key"],
            data_dir=role.data_dir,
            runner_pid=self.runner.pid if self.runner.running else 0,
        )


@contextlib.asynccontextmanager
async def roles_apart(
    *, with_runner: bool = True, runner_options: Sequence[str] = ()
) -> AsyncIterator[RolesApart]:
    """All three, until the end; each must then end in order when it is asked to.

    Without a runner only the other two are started; `runner` is then a process that never was.
    """
    with tempfile.TemporaryDirectory(prefix="voicethere-") as folder:
        roles = RolesApart(*(Role(name, folder) for name in ("control", "sessions", "runner")))
        started: list[Role] = []
        try:
            for role, options in (
                (roles.control, ["--port=0"]),
                (roles.sessions, ["--port=0"]),
                (roles.runner, list(runner_options)),
            ):
                if role is roles.runner and not with_runner:
                    continue
                started.append(role)
                await role.start(*options)
            yield roles
        finally:
            statuses = [await role.end() for role in reversed(started)]
        assert not any(statuses), f"a role did not end in order: {statuses}"
