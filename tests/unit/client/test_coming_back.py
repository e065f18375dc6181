"""Who fetches whom back after a lost connection: the runner offers again, or the client joins again."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from voicethere.client.background import BackgroundTasks
from voicethere.client.ending import Ending
from voicethere.client.link import RunnerLink
from voicethere.client.recovery import Recovery, RecoveryEvents
from voicethere.errors.codes import SessionErrorCode
from voicethere.testing.virtual_time import in_virtual_time


class Link:
    """A link whose runner offers again `offered` seconds after the loss, and that never connects."""

    in_room = True

    def __init__(self, offered: float | None) -> None:
        self.lost_at = asyncio.get_running_loop().time()
        self.offered = offered
        self.joined: list[float] = []

    @property
    def coming_back(self) -> bool:
        """As the real one: for two seconds from the offer on."""
        since = asyncio.get_running_loop().time() - self.lost_at
        return self.offered is not None and self.offered <= since < self.offered + 2.0

    async def join(self) -> None:
        self.joined.append(round(asyncio.get_running_loop().time() - self.lost_at, 1))

    async def carried(self) -> None:
        await asyncio.Event().wait()


class NotEnded:
    begun = False

    def __init__(self) -> None:
        self.settled = asyncio.Event()


@pytest.mark.parametrize(
    ("offered", "joins"),
    [
        (None, [1.0, 3.0]),
        (0.5, [3.0]),  # it is on its way back at 1.0; at 3.0 that has come to nothing
        (2.5, [1.0]),
    ],
)
def test_a_client_that_is_being_fetched_back_does_not_come_by_itself_too(
    offered: float | None, joins: list[float]
) -> None:
    @in_virtual_time
    async def run() -> list[float]:
        failures: list[Any] = []
        tasks = BackgroundTasks(lambda name, error: failures.append((name, error)))
        link = Link(offered)
        recovery = Recovery(
            cast(RunnerLink, link),
            ending=cast(Ending, NotEnded()),
            tasks=tasks,
            delays=(1.0, 2.0),
            events=RecoveryEvents(
                retrying=lambda _code: None, explained=lambda: None, failed=lambda _code, _why: None
            ),
        )
        recovery.connection_lost(SessionErrorCode.WEBRTC_CONNECTION_CLOSED, resumable=True)
        await asyncio.sleep(5.0)
        await tasks.aclose()
        assert failures == []
        return link.joined

    assert run() == joins
