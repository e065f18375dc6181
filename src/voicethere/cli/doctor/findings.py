"""What a check is, what it finds, and how all of them are run: one after the other, each bounded in time.

Knows nothing of what is checked.
"""

from __future__ import annotations

import asyncio
import enum
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

T = TypeVar("T")

_GRACE_SECONDS = 3.0
"""How long a check that took too long may take to put away what it had begun."""


class Level(enum.StrEnum):
    """`FAILED`: `voicethere up` does not work without it. `WARNING`: it does, but less well."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(msgspec.Struct, frozen=True):
    """`todo` says what to do; empty where nothing is to be done."""

    level: Level
    found: str
    todo: str = ""


def ok(found: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, found)


def warning(found: str, todo: str) -> Finding:
    """The platform works without it, but less well."""
    return Finding(Level.WARNING, found, todo)


def failed(found: str, todo: str) -> Finding:
    """The platform does not work without it."""
    return Finding(Level.FAILED, found, todo)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """`needed`: whether the platform cannot do without what `run` tries, for the case that it cannot even be
    tried. `todo` is what to do then."""

    name: str
    run: Callable[[], Awaitable[Finding]]
    needed: bool
    todo: str
    seconds: float = 10.0

    def not_done(self, why: str, todo: str = "") -> Finding:
        """The finding where the check itself came to nothing."""
        return Finding(Level.FAILED if self.needed else Level.WARNING, why, todo or self.todo)


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    name: str
    level: Level
    found: str
    todo: str
    seconds: float


async def run_checks(checks: Sequence[Check]) -> AsyncIterator[Checked]:
    """Run all of them, in order. Whatever a check raises, and however long it takes, becomes its finding."""
    for check in checks:
        began = time.monotonic()
        finding = await _run(check)
        yield Checked(
            name=check.name,
            level=finding.level,
            found=finding.found,
            todo=finding.todo,
            seconds=round(time.monotonic() - began, 3),
        )


async def _run(check: Check) -> Finding:
    task = asyncio.ensure_future(check.run())
    done, _ = await asyncio.wait({task}, timeout=check.seconds)
    if not done:
        task.cancel()
        await asyncio.wait({task}, timeout=_GRACE_SECONDS)
        return check.not_done(f"no answer within {check.seconds:g} s")
    try:
        return task.result()
    except ModuleNotFoundError as error:
        return check.not_done(
            f"the package {error.name} is not installed", "pip install 'voicethere[server,client,speech]'"
        )
    except Exception as error:
        return check.not_done(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


async def in_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises. A thread that hangs (a dead network disk) holds up nobody's end."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(value)  # type: ignore[arg-type]

    def call() -> None:
        value: T | None = None
        problem: BaseException | None = None
        try:
            value = work()
        except BaseException as error:
            problem = error
        try:
            loop.call_soon_threadsafe(settle, value, problem)
        except RuntimeError:
            return  # the loop is gone: nobody waits any more

    threading.Thread(target=call, name="doctor", daemon=True).start()
    return await outcome
