"""The account as it is written: figures in their order, differences and remarks with examples."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

MAX_SHOWN = 10
"""How many examples of a difference are shown."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Figures, in the order in which they are shown; `differences` is empty where all is well.

    `remarks` are worth a look, and no difference.
    """

    figures: dict[str, int]
    differences: list[str]
    remarks: list[str]


class Ledger:
    """Filled part by part."""

    def __init__(self) -> None:
        self.figures: dict[str, int] = {}
        self.differences: list[str] = []
        self.remarks: list[str] = []

    def count(self, name: str, number: int) -> None:
        """A figure."""
        self.figures[name] = number

    def must_be_none(self, name: str, wrong: Iterable[str]) -> None:
        """A figure that must be 0: each of `wrong` is a difference."""
        examples = list(wrong)
        self.figures[name] = len(examples)
        self.differences += [f"{name}: {example}" for example in examples[:MAX_SHOWN]]
        if len(examples) > MAX_SHOWN:
            self.differences.append(f"{name}: … and {len(examples) - MAX_SHOWN} more")

    def remark(self, name: str, examples: Iterable[str]) -> None:
        """A figure with examples that are worth a look."""
        remarks = list(examples)
        self.figures[name] = len(remarks)
        self.remarks += [f"{name}: {remark}" for remark in remarks[:MAX_SHOWN]]
