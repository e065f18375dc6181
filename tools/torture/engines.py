"""Redis and PostgreSQL as an operator would run them: durable, on a host of their own. Commands only.

Redis answers after it has synced (`appendfsync always`), PostgreSQL after its log has. Both listen on the
host's address, for the platform, and on a Unix socket, for the run's own questions.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psycopg
import redis

DATABASE = "voicethere"
_PROGRAMS = "/usr/lib/postgresql"
_USER = "postgres"


MANIFEST = "appendonly.aof.manifest"
# A Redis that was killed within a write may leave a transaction without its end in its log; it then drops
# only the torn command, and what is accepted after that is lost at its next start (docs/nothing-lost.md).
_MENDED_REDIS = """
if [ -s "$0" ]; then yes | redis-check-aof --fix "$0" || exit; fi
exec redis-server "$@"
"""


class NoEngines(Exception):
    """An engine is not on this machine; the words say how to get it."""


class Redis:
    """One server on `folder`."""

    port = 6379

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._address = address

    @property
    def url(self) -> str:
        """For the platform."""
        return f"redis://{self._address}:{self.port}/0"

    def command(self) -> list[str]:
        """What runs it.

        Raises:
            NoEngines: there is no redis-server.
        """
        if shutil.which("redis-server") is None:
            raise NoEngines("there is no redis-server on this machine; Debian: apt-get install redis-server")
        self._folder.mkdir()
        settings = {
            "port": str(self.port),
            "bind": self._address,
            "protected-mode": "no",
            "unixsocket": str(self._folder / "redis.sock"),
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return ["sh", "-c", _MENDED_REDIS, str(self._folder / "appendonlydir" / MANIFEST), *options]

    def waiting(self, stream: str) -> int | None:
        """How many items are in the stream; None while Redis does not answer."""
        client = redis.Redis(unix_socket_path=str(self._folder / "redis.sock"), socket_timeout=2.0)
        try:
            return int(client.xlen(stream))
        except redis.RedisError:
            return None
        finally:
            client.close()


class Postgres:
    """One server on `folder`, which belongs to its user."""

    port = 5432

    def __init__(self, folder: Path, address: str, *, subnet: str) -> None:
        self._folder = folder
        self._address = address
        self._subnet = subnet
        self._programs = _programs()

    @property
    def url(self) -> str:
        """For the platform. No password: the server trusts its network, in which there is nobody else."""
        return f"postgresql://{_USER}@{self._address}:{self.port}/{DATABASE}"

    @property
    def local_url(self) -> str:
        """For the run's own questions, on the Unix socket."""
        return f"postgresql://{_USER}@/{DATABASE}?host={self._folder}&port={self.port}"

    def prepare(self) -> None:
        """Make the data directory, with the platform's database in it."""
        self._folder.mkdir()
        shutil.chown(self._folder, _USER, _USER)
        data = self._folder / "data"
        initdb: list[Path | str] = [
            self._programs / "initdb",
            "-D",
            data,
            "-U",
            _USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        self._run([*initdb, "--locale=C.UTF-8", "--no-sync"])
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {self._subnet} trust\n")
        single: list[Path | str] = [self._programs / "postgres", "--single", "-D", data, "postgres"]
        self._run(single, f"CREATE DATABASE {DATABASE}\n")

    def command(self) -> list[str]:
        """What runs it, for `setpriv`: as its user, and ended with whoever started it."""
        settings = {
            "listen_addresses": self._address,
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "max_connections": "200",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._folder / "data"), *options]

    def answers(self) -> bool:
        """Whether it takes connections now."""
        try:
            psycopg.connect(self.local_url, connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def _run(self, command: list[Path | str], given: str = "") -> None:
        done = subprocess.run(
            [str(part) for part in command],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            user=_USER,
            group=_USER,
            cwd="/",
        )
        if done.returncode != 0:
            raise NoEngines(f"`{Path(str(command[0])).name}` failed: {done.stderr.strip()[-500:]}")


AS_POSTGRES = [f"--reuid={_USER}", f"--regid={_USER}", "--init-groups"]
"""For `setpriv`: PostgreSQL refuses to be root."""


def _programs() -> Path:
    found = sorted(Path(_PROGRAMS).glob("*/bin/postgres"))
    if not found:
        raise NoEngines("PostgreSQL is not on this machine; Debian: apt-get install postgresql")
    return found[-1].parent
