"""Short conversations with a real gateway over networks that do anything at any time, from a seed."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.integration.chat_proxy.behind import Behind, behind, timings
from tests.integration.chat_proxy.conftest import Gateway
from voicethere.chat import ChatHttpError, ChatLimits, EventLogEntry
from voicethere.testing.bad_network import Fault, How, Toward

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SEEDS = range(20)
AT_ONCE = 5
BUFFERED = 8
PROMPTS = ("hello", "count 20", "card two", "count 60")


class Held:
    """How many frames waited for a snapshot at once, at most."""

    def __init__(self, chat: Behind) -> None:
        self.most = self._now = 0
        chat.log.subscribe(self._note, chat.conv_id)

    def _note(self, entry: EventLogEntry) -> None:
        if entry.type == "frame.buffered":
            self._now += 1
            self.most = max(self.most, self._now)
        elif entry.type in ("replay.begin", "connect.begin"):
            self._now = 0


def faults(chance: random.Random) -> list[Fault]:
    """What happens to one connection: nothing, or something at a place that is more likely near its begin."""
    if chance.random() < 0.4:
        return []
    how = chance.choices([How.RESET, How.END, How.STALL], [5, 5, 1])[0]
    return [
        Fault(toward=chance.choice(list(Toward)), plus=round(chance.expovariate(1 / 1500)), how=how),
    ]


async def converse(gateway: Gateway, seed: int) -> None:
    """One run: whatever the network did, in the end the client holds what the gateway holds."""
    chance = random.Random(seed)
    limits = ChatLimits(buffered_frames=BUFFERED)
    async with behind(gateway.base_url, seed=seed, timings=timings(1.0), limits=limits) as chat:
        held = Held(chat)
        chat.network.plan = lambda _: faults(chance)
        chat.network.delay(chance.choice([0.0, 0.002]), chance.choice([7, 64, 1024]))
        await chat.manager.connect(chat.conv_id)
        accepted: list[str] = []
        maybe: list[str] = []
        for number in range(3):
            # Something behind it, so that no two are alike.
            prompt = f"{chance.choice(PROMPTS)} #{seed}-{number}"
            if chance.random() < 0.3:
                await chat.network.sever(chance.choice([How.RESET, How.END]))
            if chance.random() < 0.3:
                chat.network.refuse()
            try:
                await chat.manager.send(chat.conv_id, prompt)
                accepted.append(prompt)
            except ChatHttpError:
                maybe.append(prompt)
            await chat.network.admit()
        past = 1  # the goodbye
        if chance.random() < 0.5:
            past += 1
            await chat.say("please crash now")
            # What had not been taken from it by then is dropped with a session that fails: a new one begins.
            await chat.failed()
        chat.network.calm()
        await chat.goodbye()
        await chat.until(lambda: not chat.is_streaming)
        await chat.same_as_gateway()

        prompts = [
            props["content"]
            for _, kind, _, _, props in chat.timeline
            if kind == "message" and props["role"] == "user"
        ]
        assert [prompt for prompt in prompts if prompt in accepted] == accepted, "each once, in order"
        doubtful = [prompt for prompt in prompts if prompt in maybe]
        # Not in order: one that the client gave up on may come in behind the next one.
        assert len(set(doubtful)) == len(doubtful), "each once at most"
        assert len(prompts) == len(accepted) + len(doubtful) + past, "and what went past the network"
        assert len({entity[0] for entity in chat.timeline}) == len(chat.timeline)
        assert len(chat.errors) <= 20
        assert held.most <= BUFFERED


@pytest.mark.parametrize("first", range(0, len(SEEDS), AT_ONCE))
async def test_the_client_comes_to_hold_what_the_gateway_holds(gateway: Gateway, first: int) -> None:
    """chat-state: "the newest 20 kept"; sem-chat: "To lose nothing with clients that fetch earlier, …"."""

    async def run(seed: int) -> None:
        try:
            await converse(gateway, seed)
        except Exception as error:
            error.add_note(f"the network's seed was {seed}")
            raise

    async with asyncio.TaskGroup() as runs:
        for seed in SEEDS[first : first + AT_ONCE]:
            runs.create_task(run(seed))
