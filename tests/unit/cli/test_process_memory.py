"""What sessions have left behind is collected once some have ended, and only then."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from voicethere.cli.process_memory import give_back
from voicethere.testing.virtual_time import in_virtual_time


class Leg:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


@in_virtual_time
async def test_what_ended_sessions_left_behind_is_freed_and_an_idle_process_left_alone() -> None:
    ended = 0
    giving = asyncio.create_task(give_back(lambda: ended, every=10))
    await asyncio.sleep(1)
    left = weakref.ref(Leg())
    await asyncio.sleep(25)
    assert left() is not None  # no session has ended: nobody looked
    ended += 1
    await asyncio.sleep(10)
    assert left() is None
    giving.cancel()
    await asyncio.gather(giving, return_exceptions=True)
