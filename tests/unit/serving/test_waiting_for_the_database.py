"""What a role asks of its database while it starts: a server that goes away is waited for, a file is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicethere.adapters.store import StoreUnavailable
from voicethere.cli.configuration import Configuration
from voicethere.cli.engines import Engines
from voicethere.cli.layout import DataLayout

DISTRIBUTED = Configuration(redis_url="redis://redis:6379/0", database_url="postgresql://u@db/voicethere")


class Flaky:
    """Fails so many times before it answers."""

    def __init__(self, failures: int) -> None:
        self.calls = 0
        self._failures = failures

    async def ask(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise StoreUnavailable("the server closed the connection")
        return "the first key"


def engines(configuration: Configuration, folder: Path) -> Engines:
    return Engines(configuration, DataLayout(folder), "host-1-ab")


async def test_a_server_that_goes_away_while_a_role_starts_is_waited_for(tmp_path: Path) -> None:
    flaky = Flaky(failures=1)
    assert await engines(DISTRIBUTED, tmp_path).while_starting(flaky.ask) == "the first key"
    assert flaky.calls == 2


async def test_the_database_of_this_machine_is_not_waited_for(tmp_path: Path) -> None:
    flaky = Flaky(failures=1)
    with pytest.raises(StoreUnavailable):
        await engines(Configuration(), tmp_path).while_starting(flaky.ask)
    assert flaky.calls == 1


async def test_another_failure_is_not_tried_again(tmp_path: Path) -> None:
    calls = []

    async def ask() -> None:
        calls.append("asked")
        raise ValueError("no driver")

    with pytest.raises(ValueError, match="no driver"):
        await engines(DISTRIBUTED, tmp_path).while_starting(ask)
    assert calls == ["asked"]
