"""What each fault must give: reads the reviewed table `expectations.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Literal

import msgspec

Heard = Literal["crash message", "nothing", "speech error"]


class Expected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the table; the table's head says what the fields mean."""

    title: str
    modes: list[Literal["voice", "data"]]
    client: list[str]
    rows: list[str]
    source: str | None = None
    crash_kind: str | None = None
    failure: str | None = None
    heard: Heard
    end_reason: str
    disturbs: bool = False


def expectations() -> Mapping[str, Expected]:
    """The table, in its order.

    Raises:
        msgspec.ValidationError: an entry has a wrong shape.
    """
    text = resources.files("voicethere.cli.faults").joinpath("expectations.toml").read_text()
    return msgspec.convert(tomllib.loads(text), dict[str, Expected])
