"""Carries out a schedule: kills, pauses, pulls cables, fills disks, and undoes each again.

What was done, and when, goes into a journal: `begun` and `undone`, with the pid of what was killed.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from tools.torture.cluster import Cluster
from tools.torture.journal import Journal
from tools.torture.schedule import Action, Kind, thing_of


class Chaos:
    """`run` does it all; however that ends, `Cluster.heal` is to follow."""

    def __init__(self, cluster: Cluster, journal: Journal, say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._journal = journal
        self._say = say
        # On a busy machine an action may take longer than was planned: then the next one on its target waits.
        self._targets: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self, actions: Sequence[Action], seconds: float) -> None:
        """Return after `seconds`, when every action is undone."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for action in actions:
                group.create_task(self._at(started + action.at, action))
            group.create_task(asyncio.sleep(seconds))

    async def _at(self, moment: float, action: Action) -> None:
        await asyncio.sleep(max(0.0, moment - time.monotonic()))
        async with self._targets[thing_of(action)]:
            await self._carry_out(action)

    async def _carry_out(self, action: Action) -> None:
        process = self._cluster.processes.get(action.target)
        pid = None if process is None else process.pid
        kind = action.kind.value
        self._journal.write("begun", kind=kind, target=action.target, seconds=action.seconds, pid=pid)
        self._say(f"{action.at:7.1f} s  {kind:9} {action.target:8} for {action.seconds:.1f} s")
        await self._begin(action)
        await asyncio.sleep(action.seconds)
        await self._undo(action)
        self._journal.write("undone", kind=kind, target=action.target)

    async def _begin(self, action: Action) -> None:
        cluster, target = self._cluster, action.target
        match action.kind:
            case Kind.KILL:
                await cluster.processes[target].kill()
            case Kind.PAUSE:
                cluster.processes[target].pause()
            case Kind.PARTITION:
                cluster.network.pull_cable(target)
            case Kind.CUT:
                cluster.network.lose_packets(target, cluster.site.data)
            case Kind.FILL | Kind.STARVE:
                await asyncio.to_thread(cluster.disks[target].fill)

    async def _undo(self, action: Action) -> None:
        cluster, target = self._cluster, action.target
        match action.kind:
            case Kind.KILL:
                await cluster.processes[target].start()
            case Kind.PAUSE:
                cluster.processes[target].resume()
            case Kind.PARTITION:
                cluster.network.plug_cable(target)
            case Kind.CUT:
                cluster.network.find_packets(target, cluster.site.data)
            case Kind.FILL | Kind.STARVE:
                cluster.disks[target].empty()
