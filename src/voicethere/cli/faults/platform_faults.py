"""How to bring about the faults of the platform itself: locked files, a full disk, processes that die.

Nothing here knows what a fault must give. Each has a platform of its own.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil

from voicethere.cli.ears import DidNotHappen
from voicethere.cli.faults.lab import Trial
from voicethere.client import Session
from voicethere.testing.distributed import Distributed
from voicethere.testing.postgres_server import PostgresServer
from voicethere.testing.redis_server import RedisServer

FAILING_AGENT = "raise_in_data_message"
_FULL_DISK_BYTES = 16 * 1024


@contextlib.asynccontextmanager
async def _talking(trial: Trial) -> AsyncIterator[Session]:
    """A session whose agent is there."""
    trial.agent_does = FAILING_AGENT
    credentials = await trial.start()
    if credentials is None:
        raise DidNotHappen("the session could not be started")
    async with trial.connected(credentials) as session:
        if session is None:
            raise DidNotHappen("the client did not connect")
        await trial.ears.until("the agent's start", lambda: trial.ears.message("started"))
        yield session


async def _agent_fails(trial: Trial, session: Session) -> None:
    trial.mark()
    session.send_chat("go")
    await trial.outcome(session)


async def database_locked(trial: Trial) -> None:
    """Another process holds the database for itself while the agent fails; a server hangs."""
    roles = trial.lab.roles
    async with _talking(trial) as session:
        with (
            _hanging(roles.postgres)
            if isinstance(roles, Distributed)
            else _locked(Path(trial.lab.platform.data_dir) / "voicethere.db")
        ):
            await _agent_fails(trial, session)


async def queue_locked(trial: Trial) -> None:
    """Another process holds the queue's file for itself while the agent fails; a server hangs."""
    roles = trial.lab.roles
    async with _talking(trial) as session:
        with (
            _hanging(roles.redis)
            if isinstance(roles, Distributed)
            else _locked(Path(trial.lab.platform.data_dir) / "queue.db")
        ):
            await _agent_fails(trial, session)


async def disk_full(trial: Trial) -> None:
    """No file of the platform's may grow any more while the agent fails."""
    processes = [psutil.Process(trial.lab.platform.runner_pid)]
    if trial.lab.roles is None:  # the runner's parent is then the platform, and not us
        parent = processes[0].parent()
        assert parent is not None
        processes.append(parent)
    async with _talking(trial) as session:
        with contextlib.ExitStack() as full:
            for process in processes:
                full.enter_context(_full_disk(process))
            await _agent_fails(trial, session)


async def runner_killed(trial: Trial) -> None:
    """SIGKILL for the runner in the middle of a session."""
    async with _talking(trial) as session:
        trial.mark()
        psutil.Process(trial.lab.platform.runner_pid).kill()
        await trial.outcome(session)


async def service_restarted(trial: Trial) -> None:
    """The session service is killed and started again in the middle of a session; then the agent fails."""
    roles = trial.lab.roles
    assert roles is not None
    async with _talking(trial) as session:
        await roles.service.end(signal.SIGKILL)
        await roles.service.start()
        await trial.shows_life(session)
        await _agent_fails(trial, session)


async def no_runner(trial: Trial) -> None:
    """A session service to which no runner is linked."""
    trial.mark()
    await trial.start()


@contextlib.contextmanager
def _hanging(server: PostgresServer | RedisServer) -> Iterator[None]:
    """The server takes connections and answers nothing."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a SQLite file with a transaction that keeps every writer out."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@contextlib.contextmanager
def _full_disk(process: psutil.Process) -> Iterator[None]:
    """Let the process write no file past a few pages, as a full disk does to a database."""
    _, hard = process.rlimit(resource.RLIMIT_FSIZE)
    process.rlimit(resource.RLIMIT_FSIZE, (_FULL_DISK_BYTES, hard))
    try:
        yield
    finally:
        process.rlimit(resource.RLIMIT_FSIZE, (hard, hard))
