"""The runners that are linked now, and how much each carries.

Knows capacity; does not know what a session is, nor how a runner is reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from voicethere.core.provisioning import RunnerLoad, has_room


class _Runner(msgspec.Struct):
    capacity: int
    hosted: set[str]
    reported_active: int = 0
    draining: bool = False


class LinkedRunners:
    """`now` is always in seconds of a clock that never jumps.

    Example:
        >>> runners = LinkedRunners(now=0.0)
        >>> runners.linked("r-1", capacity=4, hosted=["s-1"])
        >>> runners.loads()[0].free
        3
    """

    def __init__(self, *, now: float) -> None:
        self._runners: dict[str, _Runner] = {}
        self._runnerless_since: float | None = now

    @property
    def runnerless_since(self) -> float | None:
        """Since when no runner at all has been linked; None while there is one."""
        return self._runnerless_since

    def __len__(self) -> int:
        return len(self._runners)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._runners))

    def __contains__(self, runner_id: object) -> bool:
        return runner_id in self._runners

    def linked(self, runner_id: str, *, capacity: int, hosted: Sequence[str], draining: bool = False) -> None:
        """A hello: what was known of the runner before is replaced."""
        self._runners[runner_id] = _Runner(capacity=max(0, capacity), hosted=set(hosted), draining=draining)
        self._runnerless_since = None

    def gone(self, runner_id: str, *, now: float) -> None:
        """Its link is lost. Harmless where it was not there."""
        if self._runners.pop(runner_id, None) is not None and not self._runners:
            self._runnerless_since = now

    def heartbeat(self, runner_id: str, active: int, *, draining: bool = False) -> None:
        """What the runner says it carries, and whether it takes no more."""
        runner = self._runners.get(runner_id)
        if runner is not None:
            runner.reported_active = active
            runner.draining = draining

    def full(self, runner_id: str) -> None:
        """It refused for lack of room: believe that until it says otherwise."""
        runner = self._runners.get(runner_id)
        if runner is not None:
            runner.reported_active = max(runner.reported_active, runner.capacity)

    def reserve(self, runner_id: str, session_id: str) -> None:
        """The session is given to this runner."""
        self._runners[runner_id].hosted.add(session_id)

    def release(self, runner_id: str, session_id: str) -> None:
        """The session is off this runner. Harmless where it was not there."""
        runner = self._runners.get(runner_id)
        if runner is not None and session_id in runner.hosted:
            runner.hosted.discard(session_id)
            # Its last heartbeat still counts the session.
            runner.reported_active = max(0, runner.reported_active - 1)

    def loads(self) -> list[RunnerLoad]:
        """What each carries."""
        return [
            RunnerLoad(
                runner_id=runner_id,
                capacity=runner.capacity,
                hosted=len(runner.hosted),
                reported_active=runner.reported_active,
                draining=runner.draining,
            )
            for runner_id, runner in self._runners.items()
        ]

    @property
    def capacity(self) -> int:
        """Of all runners together."""
        return sum(runner.capacity for runner in self._runners.values())

    @property
    def free(self) -> int:
        """How many more sessions all runners together can take now."""
        return sum(load.free for load in self.loads())

    @property
    def has_room(self) -> bool:
        """Whether one more session could be hosted now."""
        return has_room(self.loads())
