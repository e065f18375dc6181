"""A Redis of one's own for a while: a real `redis-server` that can be killed, paused and started again.

For tests and demonstrations of the distributed set-up. Knows the server's process, its port and its data;
knows nothing of what is kept in it. It ends with whoever started it, also when that is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from voicethere.testing.ports import free_port

START_SECONDS = 20.0
STOP_SECONDS = 20.0


class RedisNotStarted(Exception):
    """There is no Redis; the words say why, and what would help."""


class RedisServer:
    """Made by `redis_server`. The data and the port stay the same through `stop`, `kill` and `start`."""

    def __init__(self, folder: Path, port: int, *, options: Mapping[str, str], password: str | None) -> None:
        self._folder = folder
        self._options = options
        self._password = password
        self._process: asyncio.subprocess.Process | None = None
        self.port = port
        self.socket_path = folder / "redis.sock"

    @property
    def url(self) -> str:
        """`redis://…` on TCP, with the password where there is one."""
        secret = "" if self._password is None else f":{self._password}@"
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The same server on its Unix socket."""
        secret = "" if self._password is None else f":{self._password}@"
        return f"unix://{secret}{self.socket_path}?db=0"

    @property
    def pid(self) -> int | None:
        """Of the running server; None while it is down."""
        return self._process.pid if self.running and self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether the process is there (it may be paused)."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Return once it answers; harmless where it runs.

        Raises:
            RedisNotStarted: it ended, or did not answer in time; the words hold the end of what it said.
        """
        if self.running:
            return
        self._process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=self._folder,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise RedisNotStarted(f"redis-server ended: {self._said()}")
                    await asyncio.sleep(0.005)
        except TimeoutError:
            await self.kill()
            message = f"redis-server did not answer within {START_SECONDS:g} s: {self._said()}"
            raise RedisNotStarted(message) from None

    async def stop(self) -> None:
        """End it in order (it writes what it keeps); harmless where it is down."""
        if self._process is not None and self.running:
            self.resume()
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                await self.kill()

    async def kill(self) -> None:
        """`kill -9`: what it had not brought to the operating system is lost. Harmless where it is down."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def pause(self) -> None:
        """Stop it in its tracks: connections stay open, nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)

    def _command(self) -> list[str]:
        # Where it is there (util-linux), the kernel ends the server with whoever started it.
        setpriv = shutil.which("setpriv")
        command = [] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--"]
        command += ["redis-server", "--port", str(self.port)]
        fixed = {
            "bind": "127.0.0.1",
            # By its name alone: a socket's path has room for a hundred characters only.
            "unixsocket": self.socket_path.name,
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "logfile": str(self._folder / "redis.log"),
            "daemonize": "no",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        if self._password is not None:
            fixed["requirepass"] = self._password
        for name, value in {**fixed, **self._options}.items():
            command += [f"--{name}", value]
        return command

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            answer = await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        # While it reads its data it says -LOADING.
        return answer.startswith((b"+PONG", b"-NOAUTH"))

    def _said(self) -> str:
        try:
            lines = (self._folder / "redis.log").read_text(errors="replace").splitlines()
        except OSError:
            return "it left no log"
        return " / ".join(lines[-5:])[-800:]


@contextlib.asynccontextmanager
async def redis_server(
    *,
    appendonly: bool = False,
    appendfsync: str = "always",
    password: str | None = None,
    options: Mapping[str, str] | None = None,
) -> AsyncIterator[RedisServer]:
    """A running server on a free port of 127.0.0.1 and a Unix socket; nothing of it is left afterwards.

    Without `appendonly` it keeps nothing over a restart. `options` are further settings of redis.conf.

    Example:
        >>> async with redis_server(appendonly=True) as server:
        ...     queue = RedisErrorQueue(server.url)

    Raises:
        RedisNotStarted: there is no redis-server on this machine, or it did not start.
    """
    if shutil.which("redis-server") is None:
        raise RedisNotStarted(
            "there is no redis-server on this machine; Debian: apt-get install redis-server"
        )
    settings = {
        "appendonly": "yes" if appendonly else "no",
        "appendfsync": appendfsync,
        **(options or {}),
    }
    with tempfile.TemporaryDirectory(prefix="voicethere-redis-", ignore_cleanup_errors=True) as folder:
        server = RedisServer(Path(folder), free_port(), options=settings, password=password)
        try:
            await server.start()
            yield server
        finally:
            await server.kill()
