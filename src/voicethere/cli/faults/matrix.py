"""Runs the matrix: which fault is injected how, where, and beside what.

Most faults share one platform, several at a time, with a bystander that must not notice. Those that break a
part which sessions share have a platform of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Literal

import httpx
import msgspec

from voicethere.cli.ears import DidNotHappen
from voicethere.cli.faults import connection_faults, platform_faults
from voicethere.cli.faults.agent_faults import BY_GO, BY_SPEECH, BY_STARTING, BY_WAITING, agent_fault
from voicethere.cli.faults.expected import Expected, expectations
from voicethere.cli.faults.lab import RUNNER_SETTINGS, Bystander, Lab, Trial
from voicethere.cli.faults.observed import Observed, differences
from voicethere.cli.starting import starting
from voicethere.core.ports import Synthesizer
from voicethere.testing.distributed import Distributed, distributed_platform
from voicethere.testing.platform_process import Operator, PlatformFailed, fresh_platform
from voicethere.testing.roles_apart import RolesApart, roles_apart

AT_ONCE = 3
WAITING_AT_ONCE = 16
PLATFORMS_AT_ONCE = 2

HOGS = ("loop_in_coroutine", "loop_in_plain_code", "flood_of_messages", "gigabyte_logged", "out_of_memory")

Engines = Literal["embedded", "distributed"]
Inject = Callable[[Trial], Awaitable[None]]
Cell = tuple[str, str, Expected]
"""`(fault, mode, what it must give)`."""


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """How a fault is brought about.

    `cost`: `work` like any session, mostly `time`, or all the `processor` that there is. `platform`: `shared`
    with others; `alone`, because it touches what sessions share; `apart`, with every role a process of its
    own; or that `without runner`. `end_awaited`: whether the session's end is waited for.
    """

    inject: Inject
    cost: Literal["work", "time", "processor"] = "work"
    platform: Literal["shared", "alone", "apart", "without runner"] = "shared"
    end_awaited: bool = True


INJECTIONS: dict[str, Injection] = {
    **{name: Injection(inject=agent_fault) for name in (*BY_GO, *BY_STARTING, *BY_SPEECH)},
    **{name: Injection(inject=agent_fault) for name in ("raise_in_binary", "raise_in_session_end")},
    **{name: Injection(inject=agent_fault, cost="time") for name in BY_WAITING},
    **{name: Injection(inject=agent_fault, cost="processor") for name in HOGS},
    "speech_synthesis_dies": Injection(inject=connection_faults.speech_synthesis_dies, platform="alone"),
    "speech_recognition_dies": Injection(inject=connection_faults.speech_recognition_dies, platform="alone"),
    "peer_vanishes": Injection(inject=connection_faults.peer_vanishes, cost="time"),
    "ice_never_connects": Injection(inject=connection_faults.ice_never_connects, cost="time"),
    "signaling_drops": Injection(inject=connection_faults.signaling_drops),
    "bad_join_token": Injection(inject=connection_faults.bad_join_token, end_awaited=False),
    "not_deployed": Injection(inject=connection_faults.not_deployed, end_awaited=False),
    "bad_key": Injection(inject=connection_faults.bad_key, end_awaited=False),
    "http_500": Injection(inject=connection_faults.http_500, end_awaited=False),
    "provisioning_timeout": Injection(
        inject=connection_faults.provisioning_timeout, platform="alone", end_awaited=False
    ),
    "database_locked": Injection(inject=platform_faults.database_locked, platform="alone"),
    "queue_locked": Injection(inject=platform_faults.queue_locked, platform="alone"),
    "disk_full": Injection(inject=platform_faults.disk_full, platform="alone"),
    "runner_killed": Injection(inject=platform_faults.runner_killed, platform="alone"),
    "service_restarted": Injection(inject=platform_faults.service_restarted, platform="apart"),
    "no_runner": Injection(inject=platform_faults.no_runner, platform="without runner", end_awaited=False),
}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of the matrix, and what came of it each time. `wrong` says what was not as it must be."""

    fault: str
    mode: str
    title: str
    observed: list[Observed]
    wrong: list[str]

    @property
    def explained(self) -> bool:
        """Whether everybody was told why, every time."""
        return not self.wrong


def chosen(names: Sequence[str]) -> list[Cell]:
    """`(fault, mode, expected)` of the named faults, or of all.

    Raises:
        ValueError: a name that is no fault's.
    """
    table = expectations()
    if unknown := [name for name in names if name not in table]:
        raise ValueError(f"no such fault: {', '.join(unknown)}; there are {', '.join(table)}")
    return [
        (name, mode, expected)
        for name, expected in table.items()
        if not names or name in names
        for mode in expected.modes
    ]


class Matrix:
    """Runs the chosen cells, `repeat` times each; `progress` is told of every session that is done.

    On `distributed` engines every platform is Redis, PostgreSQL and all roles as processes of their own.
    """

    def __init__(
        self,
        *,
        voice: Synthesizer,
        repeat: int = 1,
        engines: Engines = "embedded",
        progress: Callable[[str, str, list[str]], None],
    ) -> None:
        self._engines = engines
        self._voice = voice
        self._repeat = repeat
        self._progress = progress
        self._rooms = {
            "work": asyncio.Semaphore(AT_ONCE),
            "time": asyncio.Semaphore(WAITING_AT_ONCE),
            "processor": asyncio.Semaphore(1),
        }
        self._platforms = asyncio.Semaphore(PLATFORMS_AT_ONCE)

    async def run(self, cells: Iterable[Cell]) -> list[Case]:
        """What came of each cell, in the given order.

        Raises:
            PlatformFailed: a platform for them did not start.
        """
        cells = list(cells)
        observed: dict[tuple[str, str], list[Observed]] = {(name, mode): [] for name, mode, _ in cells}
        shared = [cell for cell in cells if INJECTIONS[cell[0]].platform == "shared"]
        alone = [cell for cell in cells if cell not in shared]
        await asyncio.gather(
            self._together(shared, observed),
            *(self._alone(cell, observed) for _ in range(self._repeat) for cell in alone),
        )
        return [
            Case(
                fault=name,
                mode=mode,
                title=expected.title,
                observed=observed[name, mode],
                wrong=sorted(
                    {
                        problem
                        for seen in observed[name, mode]
                        for problem in differences(expected, mode, seen)
                    }
                ),
            )
            for name, mode, expected in cells
        ]

    async def _together(
        self, cells: Sequence[Cell], observed: Mapping[tuple[str, str], list[Observed]]
    ) -> None:
        if not cells:
            return
        async with self._lab("shared") as (lab, bystander):
            await asyncio.gather(
                *(
                    self._one(lab, bystander, cell, observed[cell[0], cell[1]])
                    for _ in range(self._repeat)
                    for cell in cells
                )
            )

    async def _alone(self, cell: Cell, observed: Mapping[tuple[str, str], list[Observed]]) -> None:
        async with self._platforms, self._lab(INJECTIONS[cell[0]].platform) as (lab, bystander):
            await self._one(lab, bystander, cell, observed[cell[0], cell[1]])

    @contextlib.asynccontextmanager
    async def _lab(self, platform: str) -> AsyncIterator[tuple[Lab, Bystander | None]]:
        """A laboratory on a platform of that kind, and a bystander where there is a runner to host one."""
        async with contextlib.AsyncExitStack() as stack:
            settings = [f"{name}={value}" for name, value in RUNNER_SETTINGS.items()]
            roles: RolesApart | Distributed | None = None
            if self._engines == "distributed":
                # One runner where something is done to the runner of the session: then it is that one.
                runners = {"shared": 2, "without runner": 0}.get(platform, 1)
                roles = await stack.enter_async_context(
                    starting(
                        distributed_platform(
                            runners=runners,
                            settings={"capacity": 256, "runner_settings": RUNNER_SETTINGS},
                        )
                    )
                )
                running, control = roles.session_service, roles.control_plane
            elif platform in ("shared", "alone"):
                options = [f"--runner-set={setting}" for setting in settings]
                running = await stack.enter_async_context(
                    starting(fresh_platform([*options, "--capacity=256"]))
                )
                control = running
            else:
                roles = await stack.enter_async_context(
                    starting(
                        roles_apart(
                            with_runner=platform == "apart",
                            runner_options=[f"--set={setting}" for setting in settings],
                        )
                    )
                )
                running, control = roles.session_service, roles.control_plane
            operator = await stack.enter_async_context(Operator(control))
            lab = await Lab.set_up(running, operator, self._voice, roles)
            bystander = None
            if platform != "without runner":
                bystander = await stack.enter_async_context(Bystander(lab).present())
            yield lab, bystander

    async def _one(self, lab: Lab, bystander: Bystander | None, cell: Cell, into: list[Observed]) -> None:
        name, mode, expected = cell
        injection = INJECTIONS[name]
        async with self._rooms[injection.cost]:
            trial = Trial(lab, name, mode)
            try:
                await injection.inject(trial)
                disturbed = bystander is not None and await bystander.disturbed()
                seen = await trial.observe(disturbed=disturbed, wait_for_end=injection.end_awaited)
            except (DidNotHappen, PlatformFailed, TimeoutError, OSError, httpx.HTTPError) as problem:
                seen = Observed(problem=f"{type(problem).__name__}: {problem}")
        into.append(seen)
        self._progress(name, mode, differences(expected, mode, seen))
