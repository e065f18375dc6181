"""Keeps children ready for the next sessions of the agents that it is told, one task for each of them.

A session takes a child only if it is of the very same deployment (`DeployedAgent`, all of it but the mode: an
agent with audio serves conversations, too). What becomes of a child that no session has taken is no session's
error: it is logged, and another one is started after a pause that grows. Where an agent is not warm its
sessions start as they always do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence

import msgspec
import structlog

from voicethere.errors import Redactor
from voicethere.roles.runner.agent_children import AgentChildren
from voicethere.roles.runner.session_environment import environment_ahead
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.roles.runner.warm_child import WarmChild
from voicethere.wire.relay import DeployedAgent
from voicethere.wire.session_api import Mode

_log = structlog.get_logger(__name__)

ANSWER_SECONDS = 0.25
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
STEADY_SECONDS = 60.0
"""Who lived that long has not failed to start: the pauses begin anew."""
NO_ROOM_PAUSE_SECONDS = 5.0
_STARTING_AT_ONCE = 2
_MAX_PROBLEM_CHARS = 500

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_Key = bytes


class WarmRules(msgspec.Struct, frozen=True, kw_only=True):
    """`children` are kept in all, `per_agent` of one deployment, none for longer than `seconds`."""

    children: int = 16
    per_agent: int = 1
    seconds: float = 1800.0


class WarmChildren:
    """`has_room` says whether this machine can afford one more child that nobody asked for."""

    def __init__(
        self,
        *,
        children: AgentChildren,
        bundles: UnpackedBundles,
        rules: WarmRules,
        has_room: Callable[[], bool],
    ) -> None:
        self._children = children
        self._bundles = bundles
        self._rules = rules
        self._has_room = has_room
        self._slots: dict[tuple[_Key, int], asyncio.Task[None]] = {}
        self._ready: dict[_Key, deque[WarmChild]] = {}
        self._starting = asyncio.Semaphore(_STARTING_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self.taken = 0
        """How many sessions got one."""
        self.lost = 0
        """How many could not be started, or failed before a session came."""

    @property
    def waiting(self) -> int:
        """How many are ready now."""
        return sum(map(len, self._ready.values()))

    def keep(self, agents: Sequence[DeployedAgent]) -> None:
        """Keep children of these agents from now on, and of no others; who comes first counts most."""
        wanted = self._wanted(agents)
        for slot in self._slots.keys() - wanted.keys():
            self._slots.pop(slot).cancel()
        for slot, agent in wanted.items():
            if slot not in self._slots:
                self._slots[slot] = self._spawn(self._tend(slot[0], agent))

    async def take(self, agent: DeployedAgent) -> WarmChild | None:
        """A child that is a session's from now on: give it to that one at once. None: none is ready."""
        ready = self._ready.get(_key(agent))
        while ready:
            warm = ready.popleft()
            warm.claim()
            answered = False
            try:
                # Its process may have died a moment ago, with nobody told yet.
                answered = await warm.answers(ANSWER_SECONDS)
            finally:
                if not answered:
                    self._dismiss(warm)
            if answered:
                self.taken += 1
                return warm
            self._count_loss(agent, "it did not answer when a session came")
        return None

    async def aclose(self) -> None:
        """Stop all that no session has taken."""
        self.keep([])
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _wanted(self, agents: Sequence[DeployedAgent]) -> dict[tuple[_Key, int], DeployedAgent]:
        keyed = {_key(agent): agent for agent in agents if not agent.shared_child_per_session}
        slots = {
            (key, number): agent for number in range(self._rules.per_agent) for key, agent in keyed.items()
        }
        return dict(list(slots.items())[: self._rules.children])

    # ------------------------------------------------------------------ one slot

    async def _tend(self, key: _Key, agent: DeployedAgent) -> None:
        clock = asyncio.get_running_loop().time
        failures = 0
        while True:
            if failures:
                await asyncio.sleep(min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS))
            if not self._has_room():
                await asyncio.sleep(NO_ROOM_PAUSE_SECONDS)
                continue
            begun = clock()
            try:
                await self._keep_one(key, agent)
                failures = 0
            except Exception as problem:  # whatever it was: another try, later
                self._count_loss(agent, f"{type(problem).__name__}: {problem}")
                failures = 1 if clock() - begun >= STEADY_SECONDS else min(failures + 1, 16)

    async def _keep_one(self, key: _Key, agent: DeployedAgent) -> None:
        # Few at a time: sessions that are on need the processors too.
        async with self._starting:
            warm = await self._new(agent)
            try:
                await warm.load()
            except BaseException:
                self._dismiss(warm)
                raise
        ready = self._ready.setdefault(key, deque())
        ready.append(warm)
        try:
            await warm.left(self._rules.seconds)
        finally:
            if not warm.claimed:
                ready.remove(warm)
                self._dismiss(warm)
            if not ready and self._ready.get(key) is ready:
                del self._ready[key]

    async def _new(self, agent: DeployedAgent) -> WarmChild:
        folder = await self._bundles.folder(agent.bundle_checksum)
        redactor = Redactor(agent.secrets.values())
        return WarmChild(
            lambda on_event: self._children.make(
                bundle_dir=folder,
                environment=environment_ahead(agent),
                on_event=on_event,
                redact=redactor.text,
            )
        )

    def _count_loss(self, agent: DeployedAgent, problem: str) -> None:
        self.lost += 1
        _log.warning(
            "warm_child_lost",
            project_id=agent.project_id,
            build_id=agent.build_id,
            problem=Redactor(agent.secrets.values()).text(problem)[:_MAX_PROBLEM_CHARS],
        )

    # ------------------------------------------------------------------ ends

    def _dismiss(self, warm: WarmChild) -> None:
        """Stop it in a task of its own: nobody waits for that, and nobody's cancellation cuts it short."""
        self._spawn(warm.stop())

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="warm agent child")
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            _log.error("warm_child_not_stopped", problem=str(problem), exc_info=problem)


def _key(agent: DeployedAgent) -> _Key:
    """Equal for equal deployments, whatever order their variables came in, and however clients reach them."""
    return _encoder.encode(msgspec.structs.replace(agent, mode=Mode.DATA))
