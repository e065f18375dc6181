"""Which runners a session service knows on the Redis relay, and which frames of theirs count.

Pub/sub has no connections: that a runner is there is only what its frames, its subscription and its silence
tell. This decides it, without any input or output; the hub carries it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from voicethere.adapters.relay.redis_frames import FromRunner, Goodbye

MOST_RUNNERS = 4096
_POLLS_WITHOUT = 2  # one alone may fall between the end of a subscription and its renewal


class Verdict(Enum):
    """What to do with a frame."""

    PASS_ON = auto()
    PASS_ON_AND_ASK = auto()
    """Frames before it are missing: what the service missed, the runner's next hello tells."""
    ASK = auto()
    """Its runner is not known (any more): it must say hello first."""
    REPLACED = auto()
    """Its runner has a newer instance."""
    TOO_MANY = auto()
    OLD = auto()


@dataclass
class _Runner:
    born: int
    instance: str
    number: int
    here: bool = True
    answered: bool = True
    polls_without: int = 0

    def is_older_than(self, frame: FromRunner | Goodbye) -> bool:
        return (self.born, self.instance) < (frame.born, frame.instance)


class Presence:
    """The runners that one service knows. Those that are gone are remembered, for what they said last."""

    def __init__(self, *, most_runners: int = MOST_RUNNERS) -> None:
        self._most_runners = most_runners
        self._runners: dict[str, _Runner] = {}

    def instance_of(self, runner_id: str) -> str | None:
        """Which life of that runner is here; None where none is."""
        runner = self._runners.get(runner_id)
        return runner.instance if runner is not None and runner.here else None

    def here(self) -> Iterator[tuple[str, str]]:
        """`(runner_id, instance)` of those that are here."""
        for runner_id, runner in self._runners.items():
            if runner.here:
                yield runner_id, runner.instance

    def judge(self, frame: FromRunner | Goodbye, *, hello: bool) -> Verdict:
        """What a frame that just came is worth; one that is passed on is from now on what was said last."""
        runner = self._runners.get(frame.runner_id)
        if runner is not None and runner.instance == frame.instance:
            if frame.number <= runner.number:
                return Verdict.OLD
            missing = frame.number > runner.number + 1
            if hello:
                runner.here = runner.answered = True
                runner.polls_without = 0
            elif not runner.here:
                return Verdict.ASK
            runner.number = frame.number
            return Verdict.PASS_ON_AND_ASK if missing and not hello else Verdict.PASS_ON
        if runner is not None and runner.here and not runner.is_older_than(frame):
            return Verdict.REPLACED
        if not hello:
            return Verdict.ASK
        if runner is None and not self._has_room():
            return Verdict.TOO_MANY
        # Behind all others in the order of coming, by which those that are gone are forgotten.
        self._runners.pop(frame.runner_id, None)
        self._runners[frame.runner_id] = _Runner(frame.born, frame.instance, frame.number)
        return Verdict.PASS_ON

    def _has_room(self) -> bool:
        if len(self._runners) < self._most_runners:
            return True
        gone = next((name for name, runner in self._runners.items() if not runner.here), None)
        if gone is None:
            return False
        del self._runners[gone]
        return True

    def lose(self, runner_id: str) -> bool:
        """It is gone: whether it was here."""
        runner = self._runners.get(runner_id)
        if runner is None or not runner.here:
            return False
        runner.here = False
        return True

    def call_roll(self) -> None:
        """This service was away itself: nobody has answered yet."""
        for runner in self._runners.values():
            runner.answered = False
            runner.polls_without = 0

    def unanswered(self) -> list[str]:
        """Those that are here, and have not said hello since the roll was called."""
        return [name for name, runner in self._runners.items() if runner.here and not runner.answered]

    def polled(self, runner_id: str, instance: str, subscribers: int) -> bool:
        """How many listen on that instance's channel: whether it must be taken as gone.

        Not before it had time to answer a roll call: it may have lost Redis together with this service.
        """
        runner = self._runners.get(runner_id)
        if runner is None or runner.instance != instance or not runner.here:
            return False
        runner.polls_without = runner.polls_without + 1 if subscribers == 0 and runner.answered else 0
        return runner.polls_without >= _POLLS_WITHOUT
