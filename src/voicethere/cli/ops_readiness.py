"""Whether a process can do its work now, and if not, what is missing. Knows no dependency by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from voicethere.cli.configuration.masking import without_passwords
from voicethere.cli.running import Running

CHECK_SECONDS = 2.0
_FRESH_SECONDS = 0.5
_MAX_WORDS = 300

Look = Callable[[], Awaitable[object]]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `/readyz` answers. `checks` maps each dependency to `ok` or to what is wrong with it."""

    ready: bool
    role: str
    instance: str
    checks: dict[str, str]


class Readiness:
    """Asks the dependencies, each for a short while, and not more often than twice a second."""

    def __init__(
        self, running: Running, *, role: str, instance: str, check_seconds: float = CHECK_SECONDS
    ) -> None:
        self._check_seconds = check_seconds
        self._running = running
        self._role = role
        self._instance = instance
        self._looks: dict[str, Look] = {}
        self._asking = asyncio.Lock()
        self._last: tuple[float, Report] | None = None
        self.missing: str | None = "the role is starting"
        """What must come before anything else counts; None once the role serves."""

    def check(self, name: str, look: Look) -> None:
        """`look` raises where this dependency is away; the words of the exception are shown."""
        self._looks[name] = look

    def state(self, name: str, words: Callable[[], str | None]) -> None:
        """A dependency that knows its state: `words` gives what is wrong, or None."""

        async def look() -> None:
            if (problem := words()) is not None:
                raise _NotReady(problem)

        self._looks[name] = look

    def served(self) -> None:
        """The role serves from now on."""
        self.missing = None

    async def report(self) -> Report:
        """How it is now."""
        async with self._asking:
            if self._last is None or time.monotonic() - self._last[0] > _FRESH_SECONDS:
                names = list(self._looks)
                words = await asyncio.gather(*(self._ask(self._looks[name]) for name in names))
                self._last = (time.monotonic(), self._report(dict(zip(names, words, strict=True))))
            report = self._last[1]
        # Never an old answer to this one: a load balancer must see it at its next look.
        return self._report({name: words for name, words in report.checks.items() if name != "role"})

    def _report(self, checks: dict[str, str]) -> Report:
        problem = "it is ending: SIGTERM was received" if self._running.stopped.is_set() else self.missing
        checks = {"role": problem or "ok", **checks}
        return Report(
            ready=all(words == "ok" for words in checks.values()),
            role=self._role,
            instance=self._instance,
            checks=checks,
        )

    async def _ask(self, look: Look) -> str:
        try:
            async with asyncio.timeout(self._check_seconds):
                await look()
        except TimeoutError:
            return f"no answer within {self._check_seconds:g} s"
        except Exception as problem:
            return without_passwords(str(problem) or type(problem).__name__)[:_MAX_WORDS]
        return "ok"


class _NotReady(Exception):
    pass
