"""The platform of a run: every process on its host, told of the others by one configuration file.

Knows commands and places; does not know what is done to them (`chaos`) or what must come of it (`account`).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools.torture.disk import Disk
from tools.torture.engines import AS_POSTGRES, Postgres, Redis
from tools.torture.journal import Journal
from tools.torture.network import SUBNET, Network
from tools.torture.processes import Held, NotStarted, Supervised
from tools.torture.schedule import Site

CLIENT = "client"
CAPACITY = 8
ARRIVAL_SECONDS = 45
"""How long a runner waits for a client that never comes: shorter than by default, so that a run is."""
CONTROL_PORT = 8080
SESSIONS_PORT = 8081
BALANCER_PORT = 8000
CHATS_PORT = 8082
CHATS_BALANCER_PORT = 8001
STREAM = "voicethere:session-errors"
_ENGINE_SECONDS = 30.0
_READY_SECONDS = 60.0


class Cluster:
    """Start it with `start`; `processes` are by name, `disks` by host."""

    def __init__(self, folder: Path, prefix: str, site: Site, chaos: Journal) -> None:
        self.folder = folder
        self.site = site
        self.logs = folder / "logs"
        self.network = Network(prefix, [*site.hosts, CLIENT])
        self.disks = {host: Disk(folder / "hosts" / host / "disk") for host in site.runners}
        self.processes: dict[str, Supervised] = {}
        data = self.network.address(site.data)
        self.redis = Redis(folder / "redis", data)
        self.postgres = Postgres(folder / "postgres", data, subnet=f"{SUBNET}.0/24")
        self.deployment = folder / "deployment.json"
        self.api_key = ""
        self.fresh: dict[str, Held] = {}
        """What each role held when everything was new."""
        self._config = folder / "voicethere.toml"
        self._chaos = chaos

    @property
    def base_url(self) -> str:
        """Of the session services, for clients."""
        return f"http://{self.network.address(CLIENT)}:{BALANCER_PORT}"

    @property
    def chats_url(self) -> str:
        """Of the chat gateways, for clients."""
        return f"http://{self.network.address(CLIENT)}:{CHATS_BALANCER_PORT}"

    @property
    def control_url(self) -> str:
        """Of the control plane."""
        return f"http://{self.network.address(self.site.gateways[0])}:{CONTROL_PORT}"

    def journal(self, name: str) -> Path:
        """Where this producer, the clients or the chatters keep their journal."""
        return self.folder / f"{name}.jsonl"

    def roles_log(self, name: str) -> Path:
        """The log of a role, a producer, the clients or the chatters."""
        return self.logs / f"{name}.log"

    def host_of(self, name: str) -> str:
        """The host that a process runs on."""
        site = self.site
        if name in (site.redis, site.postgres):
            return site.data
        if name == site.control:
            return site.gateways[0]
        if name in site.producers:
            return site.runners[site.producers.index(name)]
        return name if name in site.hosts else CLIENT

    # ------------------------------------------------------------------ starting

    async def start(self) -> None:
        """Return once every role serves, and a session can be had.

        Raises:
            NoNetwork, NoEngines, NotStarted, OSError: something is missing; the words say what.
        """
        self.logs.mkdir()
        self.network.create()
        for host in self.site.hosts:
            if host in self.disks:
                self.disks[host].mount()
            else:
                (self.folder / "hosts" / host).mkdir(parents=True)
        await self._start_engines()
        self._config.write_text(
            f'redis_url = "{self.redis.url}"\n'
            f'database_url = "{self.postgres.url}"\n'
            f'bundles_url = "file://{self.folder}/bundles"\n'
            "no_worker = true\n"
        )
        site = self.site
        roles = {site.control: "control"}
        roles |= dict.fromkeys(site.gateways, "sessions")
        roles |= dict.fromkeys(site.chats, "gateway")
        roles |= dict.fromkeys(site.workers, "worker")
        roles |= dict.fromkeys(site.runners, "runner")
        for name, role in roles.items():
            await self._add(name, self._role_command(name, role))
        balancers = {
            "balancer": self._balancer_command(BALANCER_PORT, site.gateways, SESSIONS_PORT),
            "chats balancer": self._balancer_command(CHATS_BALANCER_PORT, site.chats, CHATS_PORT),
        }
        for name, command in balancers.items():
            await self._add(name, command)
        said = await asyncio.gather(*(self.processes[name].serves() for name in (*roles, *balancers)))
        self.api_key = said[0]["api_key"]
        await self._deploy()
        # Only now: the control plane keeps the process that tries bundles, from the first one on.
        self.fresh = {name: self.processes[name].held() for name in roles}

    async def start_load(self, *, rate: float, size: int, chats: int, seed: int) -> None:
        """`rate` errors a second in all, `size` clients at a time, and so many `chats`."""
        site = self.site
        for name in site.producers:
            await self._add(name, self._producer_command(name, rate / len(site.producers)))
        await self._add("clients", self._clients_command("clients", self.base_url, size, seed))
        await self._add("chatters", self._clients_command("chatters", self.chats_url, chats, seed))
        load = (*site.producers, "clients", "chatters")
        await asyncio.gather(*(self.processes[name].serves() for name in load))

    async def _start_engines(self) -> None:
        site = self.site
        await asyncio.to_thread(self.postgres.prepare)
        await self._add(site.postgres, self.postgres.command(), engine=True, options=AS_POSTGRES)
        await self._add(site.redis, self.redis.command(), engine=True)
        deadline = time.monotonic() + _ENGINE_SECONDS
        while not await asyncio.to_thread(self.postgres.answers) or self.redis.waiting(STREAM) is None:
            if time.monotonic() > deadline:
                raise NotStarted(f"the engines do not answer after {_ENGINE_SECONDS:g} s; see {self.logs}")
            await asyncio.sleep(0.1)

    async def _deploy(self) -> None:
        arguments = [f"--control={self.control_url}", f"--base={self.base_url}", f"--key={self.api_key}"]
        command = self._on(CLIENT, self._python("deployment", *arguments, f"--out={self.deployment}"))
        with (self.logs / "deployment.out").open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out
            )
            async with asyncio.timeout(_READY_SECONDS):
                status = await process.wait()
        if status != 0:
            words = (self.logs / "deployment.out").read_text(errors="replace")[-1500:]
            raise NotStarted(f"the platform could not be set up: {words}")

    async def _add(
        self, name: str, command: Sequence[str], *, engine: bool = False, options: Sequence[str] = ()
    ) -> None:
        process = Supervised(
            name,
            self._on(self.host_of(name), command, options),
            logs=self.logs,
            died=self._died,
            whole_family=engine,
        )
        self.processes[name] = process
        await process.start()

    def _died(self, name: str, status: int) -> None:
        disk = self.disks.get(self.host_of(name))
        self._chaos.write("died", target=name, status=status, disk_full=disk is not None and disk.full)

    # ------------------------------------------------------------------ commands

    def _on(self, host: str, command: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        """On that host, and ended by the kernel with whoever started it."""
        return [*self.network.enter(host), "setpriv", *options, "--pdeathsig", "KILL", "--", *command]

    def _role_command(self, name: str, role: str) -> list[str]:
        host = self.host_of(name)
        disk = self.disks.get(host)
        home = self.folder / "hosts" / host / name if disk is None else disk.place / name
        options = [f"--config={self._config}", f"--data-dir={home}", f"--log-file={self.roles_log(name)}"]
        ports = {"control": CONTROL_PORT, "sessions": SESSIONS_PORT, "gateway": CHATS_PORT}
        if role in ports:
            options += ["--host=0.0.0.0", f"--port={ports[role]}"]
        if role == "runner":
            options += [f"--capacity={CAPACITY}", f"--set=arrival_seconds={ARRIVAL_SECONDS}"]
        serve = [sys.executable, "-m", "voicethere.cli.main", "serve", role]
        return [*serve, *options, "--json", "--until-stdin-closes"]

    def _balancer_command(self, port: int, hosts: Sequence[str], behind: int) -> list[str]:
        backends = [f"{self.network.address(host)}:{behind}" for host in hosts]
        return self._python("balancer", f"--port={port}", *backends)

    def _producer_command(self, name: str, rate: float) -> list[str]:
        disk = self.disks[self.host_of(name)]
        return self._python(
            "producer",
            f"--redis={self.redis.url}",
            f"--spool={disk.place / name}",
            f"--journal={self.journal(name)}",
            f"--deployment={self.deployment}",
            f"--log={self.roles_log(name)}",
            f"--rate={rate}",
        )

    def _clients_command(self, name: str, base_url: str, size: int, seed: int) -> list[str]:
        return self._python(
            name,
            f"--base={base_url}",
            f"--journal={self.journal(name)}",
            f"--deployment={self.deployment}",
            f"--log={self.roles_log(name)}",
            f"--size={size}",
            f"--seed={seed}",
        )

    @staticmethod
    def _python(module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", f"tools.torture.{module}", *arguments]

    # ------------------------------------------------------------------ ending

    def heal(self) -> None:
        """Every cable in, every disk with room, everything that was paused going on."""
        for host in self.site.hosts:
            self.network.plug_cable(host)
            if host != self.site.data:
                self.network.find_packets(host, self.site.data)
        for disk in self.disks.values():
            disk.empty()
        for process in self.processes.values():
            process.resume()

    async def stop(self, names: Sequence[str], seconds: float) -> list[str]:
        """Ask these to end; those that did not do so in order."""
        done = await asyncio.gather(*(self.processes[name].stop(seconds) for name in names))
        return [name for name, in_order in zip(names, done, strict=True) if not in_order]

    async def aclose(self) -> None:
        """End what still runs, by force."""
        await asyncio.gather(*(process.aclose() for process in self.processes.values()))

    def spool_files(self) -> list[str]:
        """Those that are there now."""
        return [
            str(path.relative_to(self.folder))
            for path in (self.folder / "hosts").rglob("*")
            if path.is_file() and "spool" in path.suffix
        ]
