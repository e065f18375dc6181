"""What chat clients say in a torture run, and what the agent answers: numbers that the account can follow.

The bundle (`chat_agent`) is on its own in its process and spells the same words.
"""

from __future__ import annotations

import re

import msgspec

GOODBYE = "bye"
"""The order on which the agent ends its session."""
ORDERS = {"say": 10, "stream": 6, "card": 2, "raise": 2, "break": 2, "die": 2, GOODBYE: 2}
"""What a prompt may ask for, and how often."""
_LAST = " end"
_PROMPT = re.compile(r"(\d+) (\w+)")
_ANSWER = re.compile(r"answer to (\d+):.*", re.DOTALL)


class Asked(msgspec.Struct, frozen=True):
    """A prompt: its number in its conversation, and what it asks for."""

    number: int
    order: str


class Answered(msgspec.Struct, frozen=True):
    """What the agent said to the prompt `number`; `whole` unless it was cut off."""

    number: int
    whole: bool


def prompt(asked: Asked) -> str:
    """The text of it."""
    return f"{asked.number} {asked.order}"


def read_prompt(text: str) -> Asked | None:
    """None where it is none of ours."""
    found = _PROMPT.fullmatch(text)
    return None if found is None else Asked(int(found[1]), found[2])


def read_answer(text: str) -> Answered | None:
    """None where it names no prompt: what was cut off before its first words, say."""
    found = _ANSWER.fullmatch(text)
    return None if found is None else Answered(int(found[1]), text.endswith(_LAST))
