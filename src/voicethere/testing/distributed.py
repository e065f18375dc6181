"""The distributed platform for a while: a Redis and a PostgreSQL of its own, and every role several times.

Everything is real and on this machine: each role is a process with a folder of its own, told of the others by
one configuration file only. Tests may kill, pause and start again whatever they like.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from voicethere.testing.platform_process import RunningPlatform
from voicethere.testing.postgres_server import PostgresServer, postgres_server
from voicethere.testing.redis_server import RedisServer, redis_server
from voicethere.testing.role_process import Role


class Distributed:
    """What runs. `controls`, `sessions`, `gateways`, `workers` and `runners` may be added to with `add`."""

    def __init__(self, folder: Path, redis: RedisServer, postgres: PostgresServer, config_file: Path) -> None:
        self.folder = folder
        self.redis = redis
        self.postgres = postgres
        self.config_file = config_file
        self.controls: list[Role] = []
        self.sessions: list[Role] = []
        self.gateways: list[Role] = []
        self.workers: list[Role] = []
        self.runners: list[Role] = []
        self.api_key = ""

    @property
    def roles(self) -> list[Role]:
        """All of them, in an order in which they can end."""
        return [*self.runners, *self.gateways, *self.sessions, *self.workers, *self.controls]

    @property
    def control_plane(self) -> RunningPlatform:
        """For an `Operator`."""
        return self._at(self.controls[0])

    @property
    def session_service(self) -> RunningPlatform:
        """The first of them, for clients."""
        return self._at(self.sessions[0])

    @property
    def chat_gateway(self) -> RunningPlatform:
        """The first of them, for chat clients."""
        return self._at(self.gateways[0])

    @property
    def service(self) -> Role:
        """The process of that session service."""
        return self.sessions[0]

    @property
    def session_services(self) -> list[RunningPlatform]:
        """All of them, for clients."""
        return [self._at(role) for role in self.sessions]

    def _at(self, role: Role) -> RunningPlatform:
        runners = [runner for runner in self.runners if runner.running]
        return RunningPlatform(
            base_url=role.said["base_url"],
            api_key=self.api_key,
            data_dir=role.data_dir,
            runner_pid=runners[0].pid if runners else 0,
        )

    async def add(self, kind: str, *options: str) -> Role:
        """One more `control`, `sessions`, `gateway`, `worker` or `runner`; returns once it serves.

        Raises:
            RoleFailed: it did not start.
        """
        among = {
            "control": self.controls,
            "sessions": self.sessions,
            "gateway": self.gateways,
            "worker": self.workers,
            "runner": self.runners,
        }[kind]
        name = f"{kind}-{len(among) + 1}"
        home = self.folder / name
        home.mkdir()
        ports = ["--port=0"] if kind in ("control", "sessions", "gateway") else []
        role = Role(
            kind,
            str(home),
            name=name,
            options=[f"--config={self.config_file}", "--ops-port=0", *ports, *options],
        )
        among.append(role)
        await role.start()
        if kind == "control" and not self.api_key:
            self.api_key = role.said["api_key"]
        return role

    async def aclose(self) -> list[tuple[str, int]]:
        """End every role in order; those that did not end as they should, with their statuses."""
        statuses = []
        for kind in (self.runners, self.gateways, self.sessions, self.workers, self.controls):
            running = [role for role in kind if role.running]
            for role in running:
                role.send_signal(signal.SIGCONT)
            ended = await asyncio.gather(*(role.end() for role in running))
            statuses += [(role.name, status) for role, status in zip(running, ended, strict=True) if status]
        return statuses


@contextlib.asynccontextmanager
async def distributed_platform(
    *,
    controls: int = 1,
    sessions: int = 2,
    gateways: int = 0,
    workers: int = 2,
    runners: int = 2,
    durable: bool = False,
    settings: Mapping[str, Any] | None = None,
    runner_options: Sequence[str] = (),
) -> AsyncIterator[Distributed]:
    """A platform until the end, when each role that still runs must end in order; nothing is left of it.

    `durable` has Redis and PostgreSQL sync what they accept, as in production; without it they are faster and
    survive only their own death, not the machine's. `settings` go into the configuration file, a mapping
    among them as a table.

    Example:
        >>> async with distributed_platform() as platform, Operator(platform.control_plane) as operator:
        ...     deployed = await operator.deploy(bundle, name="shop")
        ...     await platform.runners[0].end(signal.SIGKILL)

    Raises:
        RoleFailed, RedisNotStarted, PostgresMissing: something did not start; the words say why.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voicethere-")))
        redis = await stack.enter_async_context(redis_server(appendonly=durable))
        postgres = await stack.enter_async_context(postgres_server(durable=durable))
        config_file = folder / "voicethere.toml"
        config_file.write_text(
            _toml(
                {
                    "redis_url": redis.url,
                    "database_url": postgres.url,
                    "bundles_url": f"file://{folder}/bundles",
                    "no_worker": True,
                    **(settings or {}),
                }
            )
        )
        platform = Distributed(folder, redis, postgres, config_file)
        try:
            await platform.add("control")
            await asyncio.gather(
                *(platform.add("control") for _ in range(controls - 1)),
                *(platform.add("sessions") for _ in range(sessions)),
                *(platform.add("gateway") for _ in range(gateways)),
                *(platform.add("worker") for _ in range(workers)),
                *(platform.add("runner", *runner_options) for _ in range(runners)),
            )
            yield platform
        finally:
            statuses = await platform.aclose()
        assert not statuses, f"roles did not end in order: {statuses}"


def _toml(values: Mapping[str, Any]) -> str:
    """TOML of plain values; JSON's notation of them is TOML's."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for key, table in values.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{key}]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    return "\n".join([*lines, ""])
