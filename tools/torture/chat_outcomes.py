"""What became of the prompts of one conversation, read from its timeline. Pure.

A prompt is answered, or an error behind it says why it is not. Which error that is follows from the order: an
agent handles its prompts one after the other, so an error behind which nothing later was answered first.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tools.torture.chat_words import GOODBYE, Answered, Asked, read_answer, read_prompt

IDLE = "SESSION_IDLE_TIMEOUT"
"""Takes no prompt along: what an idle session has not taken is for the next one."""


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """One entity of a timeline; `position` is its place in it."""

    id: str
    kind: str
    position: int
    props: Mapping[str, Any]

    @property
    def streams(self) -> bool:
        """Whether it is a message that is still being written."""
        return self.kind == "message" and self.props.get("streaming") is True


class Fate(enum.StrEnum):
    """What became of a prompt that is in the timeline."""

    ANSWERED = "answered"
    CUT = "answered in part, and an error said why"
    ERROR = "not answered, and an error said why"
    HUNG_UP = "given to a session that its agent was ending"
    """The one thing that nobody is told: the agent has hung up, as it wanted to, before it read this."""
    NOTHING = "neither answered nor told of"
    TWICE = "answered more than once"


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt in the timeline, how often it is there, and its fate. `excuse` is the id of its error."""

    asked: Asked
    times: int
    fate: Fate
    excuse: str | None = None


class _Read:
    """A timeline sorted out: what was asked, what was answered, what went wrong."""

    def __init__(self, timeline: Iterable[Entity]) -> None:
        self.prompts: dict[int, tuple[Asked, Entity]] = {}
        self.times: Counter[int] = Counter()
        self.answers: dict[int, list[tuple[Answered, Entity]]] = {}
        self.errors: list[Entity] = []
        for entity in sorted(timeline, key=lambda one: one.position):
            if entity.kind == "error":
                self.errors.append(entity)
            elif entity.kind == "message":
                self._message(entity, str(entity.props.get("content", "")))

    def _message(self, entity: Entity, text: str) -> None:
        if entity.props.get("role") == "user":
            if (asked := read_prompt(text)) is not None:
                self.times[asked.number] += 1
                self.prompts.setdefault(asked.number, (asked, entity))
        elif (answer := read_answer(text)) is not None:
            self.answers.setdefault(answer.number, []).append((answer, entity))

    def excuse(self, since: int) -> str | None:
        """The error that came behind this place, and before any later prompt was answered."""
        error = next((e for e in self.errors if e.position > since and e.props.get("code") != IDLE), None)
        if error is None:
            return None
        later = {number for number, (_, entity) in self.prompts.items() if entity.position > since}
        overtaken = any(
            number in later and given[0][1].position < error.position
            for number, given in self.answers.items()
        )
        return None if overtaken else error.id


def outcomes(timeline: Iterable[Entity]) -> list[Said]:
    """One for each prompt of the timeline, in its order."""
    read = _Read(timeline)
    said: list[Said] = []
    ending: str | None = None
    for number, (asked, entity) in read.prompts.items():
        given = read.answers.get(number, [])
        excuse = None
        if len(given) > 1:
            fate = Fate.TWICE
        elif given and given[0][0].whole:
            fate = Fate.ANSWERED
        elif (excuse := read.excuse(entity.position)) is not None:
            fate = Fate.CUT if given else Fate.ERROR
        else:
            fate = Fate.HUNG_UP if ending is not None and not given else Fate.NOTHING
        if given:
            session_id = given[0][1].id.rpartition("-")[0]
            if asked.order == GOODBYE:
                ending = session_id
            elif session_id != ending:
                ending = None
        said.append(Said(asked=asked, times=read.times[number], fate=fate, excuse=excuse))
    return said


def answers_to_nobody(timeline: Iterable[Entity]) -> list[str]:
    """The ids of answers to prompts that are not in the timeline."""
    read = _Read(timeline)
    return [
        entity.id
        for number, given in read.answers.items()
        if number not in read.prompts
        for _, entity in given
    ]
