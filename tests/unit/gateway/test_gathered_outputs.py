"""When outputs are stored, in virtual time: at once after a pause, many in one transaction under load."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from voicethere.adapters.store import Store
from voicethere.core.conversation import Applied, ConversationChange, Skipped
from voicethere.roles.gateway.outputs import Outputs, OutputsEvents
from voicethere.roles.gateway.settings import GatewaySettings
from voicethere.testing.clock import ManualClock
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire.relay import ChatMessage, ChatOutput


class Transactions:
    """Stands for the store: when each transaction began, and the sessions in it."""

    def __init__(self) -> None:
        self.begun: list[tuple[float, list[str]]] = []

    async def apply_outputs(self, changes: Sequence[ConversationChange]) -> list[Applied | Skipped]:
        now = asyncio.get_running_loop().time()
        self.begun.append((now, [change.session_id for change in changes]))
        return [Skipped(applied_up_to=None) for _ in changes]


def nothing(*_: Any) -> None:
    pass


async def stored(gaps: Sequence[float], **settings: Any) -> tuple[list[float], list[list[str]]]:
    """Outputs of the sessions `0`, `1`, … with these pauses after each: when they are stored, and together
    with which."""
    store = Transactions()
    events = OutputsEvents(stored=nothing, taken=nothing, applied=nothing)
    outputs = Outputs(cast(Store, store), ManualClock(), GatewaySettings(**settings), events)
    running = asyncio.create_task(outputs.run())
    began = asyncio.get_running_loop().time()
    for index, gap in enumerate(gaps):
        name = str(index)
        outputs.care(name, ("p", name))
        body = ChatMessage(speech_id=f"{name}-1", text="hello")
        outputs.heard("r", ChatOutput(session_id=name, number=1, body=body))
        if gap:
            await asyncio.sleep(gap)
    await asyncio.sleep(1)
    running.cancel()
    return [round(at - began, 6) for at, _ in store.begun], [names for _, names in store.begun]


@in_virtual_time
async def test_what_comes_after_a_pause_is_stored_at_once() -> None:
    times, together = await stored([0.5, 0.5, 0.5], gather_seconds=0.02)
    assert times == [0, 0.5, 1]
    assert together == [["0"], ["1"], ["2"]]


@in_virtual_time
async def test_what_comes_fast_shares_a_transaction() -> None:
    times, together = await stored([0.003] * 8, gather_seconds=0.02)
    assert together == [["0"], ["1", "2", "3", "4", "5", "6"], ["7"]]
    assert times == [0, 0.02, 0.04]


@in_virtual_time
async def test_a_full_batch_does_not_wait() -> None:
    times, together = await stored([0] * 6, gather_seconds=60, batch_outputs=2)
    assert together == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert times == [0, 0, 0]
