"""A PostgreSQL server for tests: its own data directory and port, there when asked for, gone afterwards.

Knows PostgreSQL's programs, where Debian keeps them, and that they refuse to run as root. Knows no table.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from voicethere.testing.ports import free_port

SUPERUSER = "postgres"
START_SECONDS = 60.0
STOP_SECONDS = 20.0

_HOST = "127.0.0.1"


class PostgresMissing(Exception):
    """PostgreSQL's programs are not on this machine, or cannot be run by this user; the words say how to."""


class PostgresServer:
    """One server, which can be stopped, killed and started again on the same data and port.

    Example:
        >>> async with postgres_server() as server:
        ...     store = await Store.open(server.url)
    """

    def __init__(self, directory: Path, programs: Path, port: int, *, durable: bool) -> None:
        self.port = port
        self._directory = directory
        self._programs = programs
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the database that every server has; see `url_of`."""
        return self.url_of("postgres")

    @property
    def pid(self) -> int | None:
        """Of the server's first process, while it runs."""
        return None if self._process is None else self._process.pid

    def url_of(self, database: str) -> str:
        """The URL of one of the server's databases. No password: the server trusts this machine."""
        return f"postgresql://{SUPERUSER}@{_HOST}:{self.port}/{database}"

    async def start(self) -> None:
        """Start, after a `stop` or `kill` too; return when it takes connections.

        Raises:
            RuntimeError: it ended, or took too long; the words are its log.
        """
        settings = [
            f"port={self.port}",
            f"listen_addresses={_HOST}",
            # None: a socket's path has room for a hundred characters only.
            "unix_socket_directories=",
        ]
        if not self._durable:
            settings += ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        options = [part for setting in settings for part in ("-c", setting)]
        process = self._process = self._popen(options)
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._answers():
                    if process.poll() is not None:
                        raise RuntimeError(f"PostgreSQL has ended: {self._log()}")
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            await self.kill()
            raise RuntimeError(f"PostgreSQL is not ready after {START_SECONDS} s: {self._log()}") from error

    def _popen(self, options: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                [*_prefix(), self._programs / "postgres", "-D", self._directory / "data", *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self._directory,
                # A group of its own: Ctrl-C in a terminal is for the tests, which end it.
                start_new_session=True,
            )

    async def stop(self) -> None:
        """Stop in order: connections are cut, everything is written. Harmless where it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process = process
            await self.kill()

    async def kill(self) -> None:
        """End every process of it with SIGKILL, as if its machine had lost power. Harmless without any."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)  # it must not start others meanwhile
        family = _family(process.pid)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        # Until its last child is gone its memory is in use, and the next server does not start.
        while any(_runs(pid) for pid in family):  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)

    def pause(self) -> None:
        """Freeze every process of it: it answers nothing, and closes nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    async def execute(self, statement: str, *, database: str = "postgres") -> str:
        """Run one statement through `psql`; its rows as text, one per line, columns apart by `|`.

        Raises:
            RuntimeError: the server refuses it; the words are its own.
        """
        done = await self._run(
            "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.url_of(database), "-c", statement
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    async def _answers(self) -> bool:
        return (await self._run("pg_isready", "-h", _HOST, "-p", str(self.port), "-t", "5")).returncode == 0

    async def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._programs / program), *arguments]
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            for pid in _family(self._process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-2000:]


@asynccontextmanager
async def postgres_server(
    *, durable: bool = False, settings: Sequence[str] = ()
) -> AsyncIterator[PostgresServer]:
    """A server that runs, on a free port; everything of it is gone afterwards.

    `durable`: what is committed outlives a `kill` of the machine, too (a killed server's is safe anyway).
    `settings` are lines for its configuration file.

    Raises:
        PostgresMissing: PostgreSQL is not installed, or we are root and there is no user `postgres`.
    """
    programs = _programs()
    directory = Path(tempfile.mkdtemp(prefix="voicethere-postgres-", dir="/tmp"))
    server = PostgresServer(directory, programs, free_port(), durable=durable)
    try:
        user = _user()
        if user is not None:
            shutil.chown(directory, user)
        await asyncio.to_thread(_initialize, programs, directory)
        with (directory / "data" / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{line}\n" for line in settings)
        await server.start()
        yield server
    finally:
        await server.kill()  # in order it would first write down everything that is deleted next
        shutil.rmtree(directory, ignore_errors=True)


def _initialize(programs: Path, directory: Path) -> None:
    options = ["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
    done = subprocess.run(
        [programs / "initdb", "-D", directory / "data", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
        user=_user(),
    )
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed: {(done.stdout + done.stderr)[-2000:]}")


def _programs() -> Path:
    """The newest PostgreSQL of this machine."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: (len(path.parts[4]), path.parts[4]),
    )
    in_path = shutil.which("postgres")
    if in_path is not None:
        return Path(in_path).resolve().parent
    if not found:
        raise PostgresMissing(
            "PostgreSQL is neither in PATH nor in /usr/lib/postgresql: install it"
            " (on Debian: apt install postgresql)"
        )
    return found[-1].parent


def _prefix() -> list[str]:
    """Where it is there (util-linux), the kernel ends the server with whoever started it.

    That program also changes the user: a process that did so before would forget whom to end with.
    """
    setpriv = shutil.which("setpriv")
    user = _user()
    if setpriv is None:
        return [] if user is None else ["runuser", "-u", user, "--"]
    become = [] if user is None else ["--reuid", user, "--regid", user, "--init-groups"]
    return [setpriv, *become, "--pdeathsig", "INT", "--"]


def _user() -> str | None:
    """PostgreSQL refuses to run as root: then it runs as the user that its package made."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SUPERUSER)
    except KeyError as error:
        raise PostgresMissing(
            f"PostgreSQL does not run as root, and there is no user {SUPERUSER!r}: run as another user"
        ) from error
    return SUPERUSER


def _family(pid: int) -> list[int]:
    """The process and its children, which PostgreSQL puts into sessions of their own."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] not in {"Z", "X"}
    except OSError:
        return False
