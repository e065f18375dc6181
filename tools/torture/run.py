"""One run: set up, load, chaos, heal, wait, look, and clean up; an account comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec

from tools.torture.account import Findings, settle
from tools.torture.chaos import Chaos
from tools.torture.chat_account import ChatFindings
from tools.torture.cluster import CLIENT, STREAM, Cluster
from tools.torture.database import Database
from tools.torture.janitor import clean
from tools.torture.journal import Journal, read
from tools.torture.ledger import Account
from tools.torture.network import namespaces_of
from tools.torture.rows import LoggedError
from tools.torture.schedule import Kind, Site, plan

PREFIX = "vtt"
CLIENTS_SECONDS = 150.0
"""How long clients may take to come to their ends: longer than the longest silence that they put up with."""
QUIET_SECONDS = 120.0
"""How long the platform may take to store everything and to end every session, once the load has ended: a
session also waits for a client that never comes, because its start was interrupted."""
STOP_SECONDS = 30.0
HELD_SECONDS = 10.0
"""How long what is not needed any more may take to go."""
MORE_DESCRIPTORS = 24
"""A role that has worked has connections to its engines that it did not need before."""

Say = Callable[[str], None]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` writes of one run. `hits` counts the actions of each kind; times in seconds."""

    seed: int
    seconds: float
    rate: float
    hits: dict[str, int]
    drained_seconds: float
    account: Account
    logs: str | None = None

    @property
    def passed(self) -> bool:
        """Whether there is no difference."""
        return not self.account.differences


async def torture_run(
    *, seed: int, seconds: float, rate: float, size: int, chats: int, keep: bool, say: Say
) -> Outcome:
    """One run, from nothing to nothing. `size` clients at a time, and so many `chats` for all of it.

    Raises:
        NoNetwork, NoEngines, NotStarted, OSError: the platform could not be set up.
    """
    site = Site()
    actions = plan(seed, seconds, site)
    with _run_folder(keep=keep) as (folder, prefix):
        chaos_journal = Journal(folder / "chaos.jsonl")
        cluster = Cluster(folder, prefix, site, chaos_journal)
        async with _ending(cluster):
            say("setting up hosts, engines and roles …")
            await cluster.start()
            await cluster.start_load(rate=rate, size=size, chats=chats, seed=seed)
            say(f"load flows; {len(actions)} actions in {seconds:g} s")
            await Chaos(cluster, chaos_journal, say).run(actions, seconds)
            cluster.heal()
            chaos_journal.write("healed")
            say("healed; everything comes to its end …")
            findings, drained = await _wind_up(cluster, say)
        account = settle(findings)
        hits = {kind.value: sum(action.kind is kind for action in actions) for kind in Kind}
        kept = str(folder) if keep else None
        return Outcome(
            seed=seed,
            seconds=seconds,
            rate=rate,
            hits=hits,
            drained_seconds=round(drained, 1),
            account=account,
            logs=kept,
        )


# ------------------------------------------------------------------ the frame


@contextlib.contextmanager
def _run_folder(*, keep: bool) -> Iterator[tuple[Path, str]]:
    """A folder and a prefix of this run's own; a janitor removes what is made under them, come what may."""
    _sweep()
    prefix = f"{PREFIX}{os.getpid()}-"
    folder = Path(tempfile.mkdtemp(prefix="voicethere-torture-"))
    folder.chmod(0o711)  # the database's user has to pass
    options = [f"--prefix={prefix}", f"--folder={folder}", *(["--keep"] if keep else [])]
    janitor = subprocess.Popen(
        [sys.executable, "-m", "tools.torture.janitor", *options],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield folder, prefix
    finally:
        assert janitor.stdin is not None
        janitor.stdin.close()
        janitor.wait()


def _sweep() -> None:
    """Remove what a run has left whose janitor was killed, too."""
    for name in namespaces_of(PREFIX):
        owner = name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            clean(f"{PREFIX}{owner}-", Path("/nonexistent"), keep=True)


@contextlib.asynccontextmanager
async def _ending(cluster: Cluster) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # whatever could not be made cannot be healed; the janitor comes
            cluster.heal()
        await cluster.aclose()


# ------------------------------------------------------------------ the end of a run


async def _wind_up(cluster: Cluster, say: Say) -> tuple[Findings, float]:
    """Let everything come to its end in order, and read what there is; and how long it took to drain."""
    site = cluster.site
    healed_at = time.monotonic()
    left_over = [
        f"{name} did not end in order"
        for part in await asyncio.gather(
            cluster.stop(site.producers, QUIET_SECONDS),
            cluster.stop(["clients", "chatters"], CLIENTS_SECONDS),
        )
        for name in part
    ]
    say("the load has ended; waiting for the queue and the sessions' ends …")
    database = Database(cluster.postgres.local_url)
    restless = await _until_quiet(cluster, database, say)
    drained = time.monotonic() - healed_at
    left_over += await _held(cluster)
    in_order = [*site.runners, *site.gateways, *site.chats, site.control]
    left_over += [f"{name} did not end in order" for name in await cluster.stop(in_order, STOP_SECONDS)]
    await _until_quiet(cluster, database, say)
    waiting = cluster.redis.waiting(STREAM)
    left_over += [f"{name} did not end in order" for name in await cluster.stop(site.workers, STOP_SECONDS)]
    left_over += _processes(cluster)
    findings = await asyncio.to_thread(_read, cluster, database, waiting, left_over, restless)
    return findings, drained


async def _until_quiet(cluster: Cluster, database: Database, say: Say) -> list[str]:
    """Until nothing is queued and no session is without an end; what there still is after long enough."""
    deadline = time.monotonic() + QUIET_SECONDS
    said = time.monotonic()
    while time.monotonic() < deadline:
        waiting = await asyncio.to_thread(cluster.redis.waiting, STREAM)
        sessions = await asyncio.to_thread(database.open_sessions)
        if waiting == 0 and sessions == 0:
            return []
        if time.monotonic() - said > 5:
            said = time.monotonic()
            say(f"  {waiting} items in the queue, {sessions} sessions without an end")
        await asyncio.sleep(0.5)
    return [f"{waiting} items in the queue, {sessions} sessions without an end"]


async def _held(cluster: Cluster) -> list[str]:
    """What should be gone with the last session: sockets, agents, descriptors."""
    deadline = time.monotonic() + HELD_SECONDS
    while True:
        found = _sockets(cluster)
        for name, fresh in cluster.fresh.items():
            now = cluster.processes[name].held()
            if now.descriptors > fresh.descriptors + MORE_DESCRIPTORS or now.children > fresh.children:
                found.append(f"{name} has {now}, and had {fresh} when it was new")
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.2)


def _sockets(cluster: Cluster) -> list[str]:
    """UDP sockets on hosts where no session is any more."""
    found = []
    for host in (*cluster.site.runners, CLIENT):
        command = [*cluster.network.enter(host), "ss", "-Huanp"]
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
        found += [f"a socket on {host}: {' '.join(line.split())}" for line in lines]
    return found


def _processes(cluster: Cluster) -> list[str]:
    """What runs on a host besides what still should: the engines and the load balancer."""
    wanted = {process.pid for process in cluster.processes.values() if process.running}
    found = []
    for host, pids in cluster.network.processes().items():
        if host == cluster.site.data:
            continue  # a database server comes with a family
        for pid in set(pids) - wanted:
            with contextlib.suppress(OSError):
                words = (
                    Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                found.append(f"a process on {host}: {pid} {words[:200]}")
    return found


def _read(
    cluster: Cluster, database: Database, waiting: int | None, left_over: list[str], restless: list[str]
) -> Findings:
    site = cluster.site
    chaos = read(cluster.folder / "chaos.jsonl")
    killed_pids = {
        event["pid"] for event in chaos if event["event"] == "begun" and event["kind"] == Kind.KILL.value
    }
    instances = [line for name in site.runners for line in read(cluster.processes[name].out)]
    services = [line for name in site.gateways for line in read(cluster.roles_log(name))]
    return Findings(
        producer_events=[event for name in site.producers for event in read(cluster.journal(name))],
        client_events=read(cluster.journal("clients")),
        chats=ChatFindings(events=read(cluster.journal("chatters")), conversations=database.conversations()),
        rows=database.rows(),
        sessions=database.sessions(),
        letters=database.letters(),
        suppressed=database.suppressed(),
        logged=[
            LoggedError(
                id=line["error_id"],
                session_id=line["session_id"],
                project_id=line["project_id"],
                instance=line["instance"],
            )
            for name in site.runners
            for line in read(cluster.roles_log(name))
            if line.get("event") == "session_error"
        ],
        killed_instances=frozenset(line["instance"] for line in instances if line.get("pid") in killed_pids),
        spoken_by_services=frozenset(
            line["session_id"]
            for line in services
            if line.get("event") in ("provisioning_failed", "runner_lost")
        ),
        waiting=-1 if waiting is None else waiting,
        spooled_files=cluster.spool_files(),
        left_over=left_over,
        restless=restless,
        died_by_themselves=[
            f"{event['target']} with status {event['status']}"
            for event in chaos
            if event["event"] == "died" and not event["disk_full"]
        ],
    )
