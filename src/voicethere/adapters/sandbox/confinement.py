"""The walls of one child, in the order in which they can be put up.

`confine` puts up those that the machine was found to have; `probe` finds out, by trying each in a process
that is thrown away. Neither knows what will run behind them.
"""

from __future__ import annotations

import _thread
import enum
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from voicethere.adapters.sandbox import landlock, limits, privileges, seccomp
from voicethere.adapters.sandbox.syscalls import this_architecture


class Wall(enum.StrEnum):
    """What confines a child. The values are the names that `mechanisms()` reports."""

    RESOURCE_LIMITS = "resource-limits"
    THREAD_LIMIT = "thread-limit"
    CAPABILITIES = "capabilities"
    NO_INSPECTION = "no-inspection"
    NO_NEW_PRIVILEGES = "no-new-privileges"
    PARENT_DEATH_SIGNAL = "parent-death-signal"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"
    # Second walls: what they deny is denied by seccomp too.
    LANDLOCK_TCP = "landlock-tcp"
    LANDLOCK_SCOPES = "landlock-scopes"
    NAMESPACES = "network-and-ipc-namespace"


SECOND_WALLS = frozenset({Wall.LANDLOCK_TCP, Wall.LANDLOCK_SCOPES, Wall.NAMESPACES})
"""Strict mode does without these."""


class WallState(msgspec.Struct, frozen=True, kw_only=True):
    """What the probe found of one wall. `note` says what is missing, or how it stands."""

    wall: Wall
    available: bool
    note: str = ""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What all children of one parent have in common, found out once."""

    parent: int
    landlock_abi: int
    capabilities: int
    filter: seccomp.Template | None


def survey() -> Ground:
    """The ground for children of this process.

    Raises:
        OSError: /proc cannot be read.
    """
    architecture = this_architecture()
    return Ground(
        parent=os.getpid(),
        landlock_abi=landlock.abi(),
        capabilities=privileges.count_capabilities(),
        filter=None if architecture is None else seccomp.template(architecture),
    )


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """What the walls are built around."""

    ground: Ground
    limits: limits.Limits
    grants: Sequence[landlock.Grant]


def _steps(inside: Inside) -> Iterator[tuple[Wall, Callable[[], None]]]:
    ground = inside.ground

    def limit_threads() -> None:
        privileges.count_threads_alone()
        limits.apply_thread_limit(inside.limits)

    def filter_calls() -> None:
        if ground.filter is None:
            raise OSError(f"no filter for the architecture {os.uname().machine}")
        seccomp.install(ground.filter.for_process(os.getpid()))

    yield Wall.RESOURCE_LIMITS, lambda: limits.apply(inside.limits)
    yield Wall.THREAD_LIMIT, limit_threads  # takes capabilities, may give some
    yield Wall.CAPABILITIES, lambda: privileges.drop_capabilities(ground.capabilities)
    yield Wall.NO_INSPECTION, privileges.forbid_inspection  # a change of identity resets it
    yield Wall.NO_NEW_PRIVILEGES, privileges.forbid_new_privileges
    yield Wall.PARENT_DEATH_SIGNAL, lambda: privileges.die_with(ground.parent)
    yield Wall.LANDLOCK, lambda: landlock.restrict(inside.grants, ground.landlock_abi)
    yield Wall.SECCOMP, filter_calls  # last: it refuses what the others take


def confine(inside: Inside, walls: frozenset[Wall]) -> None:
    """Put up `walls` around this process, for good. No other thread may run in it yet.

    Raises:
        OSError: a wall that the probe found could not be put up; the words name it.
    """
    for wall, put_up in _steps(inside):
        if wall in walls:
            try:
                put_up()
            except (OSError, ValueError) as error:
                raise OSError(f"{wall}: {error}") from error


# ------------------------------------------------------------------ the probe

_PROBE_LIMITS = limits.Limits(
    memory_bytes=1 << 33, cpu_seconds=60, open_files=64, processes=2, file_bytes=1 << 20
)


def _thread_starts() -> bool:
    try:
        _thread.start_new_thread(time.sleep, (60,))
    except RuntimeError:
        return False
    return True


def _check_thread_limit() -> None:
    if not _thread_starts():
        raise OSError("the kernel counts the user's other processes too")
    if _thread_starts():
        raise OSError("the kernel does not apply it to this user")


def _check_landlock() -> None:
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return
    raise OSError("the kernel takes the rules and does not apply them")


def _check_seccomp() -> None:
    try:
        socket.socket(socket.AF_UNIX).close()
    except PermissionError:
        return
    raise OSError("the kernel takes the filter and does not apply it")


_CHECKS = {
    Wall.THREAD_LIMIT: _check_thread_limit,
    Wall.LANDLOCK: _check_landlock,
    Wall.SECCOMP: _check_seccomp,
}


def _try_all(ground: Ground) -> list[WallState]:
    failures: dict[Wall, str] = {}
    inside = Inside(ground=ground, limits=_PROBE_LIMITS, grants=())

    def attempt(wall: Wall, step: Callable[[], None]) -> None:
        try:
            step()
        except (OSError, ValueError) as error:
            failures.setdefault(wall, str(error))

    steps = list(_steps(inside))
    for wall, put_up in steps:
        attempt(wall, put_up)
    # Only now: what still holds capabilities is not bound by its thread limit.
    for wall, check in _CHECKS.items():
        attempt(wall, check)
    return [
        WallState(wall=wall, available=wall not in failures, note=failures.get(wall, "")) for wall, _ in steps
    ]


def _landlock_states(stands: WallState, abi: int) -> list[WallState]:
    def since(wall: Wall, version: int, linux: str, what: str) -> WallState:
        if stands.available and abi >= version:
            return WallState(wall=wall, available=True, note=f"ABI {abi}")
        return WallState(
            wall=wall, available=False, note=f"{what} since ABI {version} (Linux {linux}); here {abi}"
        )

    first = stands
    if stands.available:
        first = since(Wall.LANDLOCK, landlock.ABI_RULES_TRUNCATION, "6.2", "truncating files is ruled")
    return [
        first,
        since(Wall.LANDLOCK_TCP, landlock.ABI_RULES_TCP, "6.7", "TCP is ruled"),
        since(Wall.LANDLOCK_SCOPES, landlock.ABI_SCOPES, "6.12", "signals and abstract sockets are ruled"),
    ]


def probe(ground: Ground) -> list[WallState]:
    """Try every wall in a forked process that then ends. The caller must have one thread only.

    Raises:
        OSError: the process could not be started, or ended without an answer.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, msgspec.json.encode(_try_all(ground)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        raise OSError(f"the probe of the sandbox ended without an answer (wait status {status})")
    states = []
    for state in msgspec.json.decode(answer, type=list[WallState]):
        states += _landlock_states(state, ground.landlock_abi) if state.wall is Wall.LANDLOCK else [state]
    return states
