"""The chat clients: conversations that last as long as the load, each with a journal of what it was told.

`python -m tools.torture.chatters`. Each conversation has a client (`voicethere.chat`), which comes and goes,
and a witness: a plain socket of its own, whose frames are looked at one by one. Prompts are sent at a steady
pace whether the client is connected or not, and whether the last one was answered or not.

The journal's events: `begun`, `prompted` (before it is sent), `accepted`, `refused`, `doubted` (nobody can
tell whether it arrived), `told` (a record of a session's error), `wrong` (what a frame should not have been),
`settled` (the client's timeline and the gateway's, at the end), `watched`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import time
import uuid
from typing import Any

import httpx
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tools.torture.chat_outcomes import Entity, Fate, outcomes
from tools.torture.chat_words import ORDERS, Asked, prompt
from tools.torture.crowd_process import crowd_process
from tools.torture.deployment import Deployment, Project
from tools.torture.frame_watch import FrameWatch
from tools.torture.journal import Journal
from voicethere.chat import (
    ChatHttpError,
    ChatStore,
    ConversationManager,
    Reconnecting,
    TimelineEntity,
    selectors,
)
from voicethere.core.chat.session_actions import PushError

PROMPT_SECONDS = 2.0
"""Between two prompts of a conversation, on average."""
SETTLE_SECONDS = 110.0
"""How long all may take to be answered or told of, once everything is whole again."""
MOST_UNDER_WAY = 4
"""Prompts of a conversation that wait to be accepted: no more are sent meanwhile."""
_REST_SECONDS = (34.0, 38.0)
"""Longer than a session may be idle."""
_ANSWER_SECONDS = 5.0
_SOON = Reconnecting(first=0.2, longest=2.0)


class Chatter:
    """One conversation. `restful`: it falls silent now and then, until its session has ended."""

    def __init__(
        self,
        base_url: str,
        project: Project,
        journal: Journal,
        chance: random.Random,
        *,
        restful: bool,
    ) -> None:
        self._url = f"{base_url}/c/{project.client_key}"
        self._project = project
        self._journal = journal
        self._chance = chance
        self._restful = restful
        self._conv_id = f"torture-{uuid.uuid4().hex}"
        # Every record is to be seen, also one that says what the one before said.
        self._store = ChatStore(duplicate_window_ms=0)
        self._watch = FrameWatch()
        self._asked = 0
        self._under_way: set[asyncio.Task[None]] = set()

    async def life(self, winding_up: asyncio.Event) -> None:
        """Until everything that was asked is answered or told of, behind `winding_up`."""
        self._write("begun", project=self._project.project_id)
        self._store.subscribe(self._on_change)
        async with ConversationManager(self._store, self._url, reconnect=_SOON) as manager:
            witness = asyncio.create_task(self._witness(), name="witness")
            presence = asyncio.create_task(self._come_and_go(manager, winding_up), name="presence")
            try:
                await self._talk(manager, winding_up)
                if self._under_way:
                    await asyncio.wait(self._under_way)
                await presence
                await self._settle(manager)
            finally:
                for task in (witness, presence):
                    task.cancel()
                await asyncio.wait((witness, presence))
        self._write("watched", frames=self._watch.frames, told_again=self._watch.told_again)

    # ------------------------------------------------------------------ talking

    async def _talk(self, manager: ConversationManager, winding_up: asyncio.Event) -> None:
        rests_at = time.monotonic() + self._chance.uniform(8, 20)
        while not winding_up.is_set():
            if len(self._under_way) < MOST_UNDER_WAY:
                task = asyncio.create_task(self._say(manager), name="prompt")
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            pause = self._chance.uniform(0.2, 2 * PROMPT_SECONDS - 0.2)
            if self._restful and time.monotonic() > rests_at:
                pause = self._chance.uniform(*_REST_SECONDS)
                rests_at = time.monotonic() + pause + self._chance.uniform(8, 20)
            await _within(winding_up, pause)

    async def _say(self, manager: ConversationManager) -> None:
        self._asked += 1
        asked = Asked(self._asked, self._chance.choices([*ORDERS], [*ORDERS.values()])[0])
        self._write("prompted", number=asked.number, order=asked.order)
        try:
            await manager.send(self._conv_id, prompt(asked))
        except ChatHttpError as error:
            event = "doubted" if error.status is None else "refused"
            self._write(event, number=asked.number, status=error.status, message=error.message)
        else:
            self._write("accepted", number=asked.number)

    async def _come_and_go(self, manager: ConversationManager, winding_up: asyncio.Event) -> None:
        """Ends connected."""
        stays = self._chance.random() < 0.4
        await manager.connect(self._conv_id)
        while not winding_up.is_set():
            if await _within(winding_up, self._chance.uniform(5, 30)) or stays:
                continue
            await manager.disconnect(self._conv_id)
            # Now within the grace, now behind it.
            await _within(winding_up, self._chance.uniform(0.2, 5))
            await manager.connect(self._conv_id)

    # ------------------------------------------------------------------ what it hears

    def _on_change(self, state: Any, action: object) -> None:
        if not isinstance(action, PushError):
            return
        error = selectors.select_current_error(state, self._conv_id)
        if error is not None and error.kind == "runtime_error" and error.code is not None:
            self._write("told", id=error.id, code=error.code, stage=error.stage)

    async def _witness(self) -> None:
        """A socket of its own, which looks at every frame; opened again whenever it is lost."""
        url = f"{self._url.replace('http', 'ws', 1)}/ws?conv_id={self._conv_id}"
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                async with connect(url, max_size=None, open_timeout=10, close_timeout=1) as socket:
                    self._watch.opened()
                    async for frame in socket:
                        for wrong in self._watch.frame(str(frame)):
                            self._write("wrong", what=wrong)
            await asyncio.sleep(0.3)

    # ------------------------------------------------------------------ the end

    async def _settle(self, manager: ConversationManager) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            client, streaming = self._seen()
            snapshot = await self._snapshot()
            same = [_shown(one) for one in client] == snapshot
            done = same and not streaming and not _open(client)
            if done or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
        self._write(
            "settled",
            status=selectors.select_connection_status(self._store.state, self._conv_id),
            streaming=streaming,
            client=[_shown(one) for one in client],
            snapshot=snapshot,
        )

    def _seen(self) -> tuple[list[TimelineEntity], bool]:
        state = self._store.state
        entities = selectors.select_timeline_entities(state, self._conv_id)
        return list(entities), selectors.select_is_streaming(state, self._conv_id)

    async def _snapshot(self) -> list[list[Any]] | None:
        try:
            async with httpx.AsyncClient(timeout=_ANSWER_SECONDS) as http:
                answer = await http.get(f"{self._url}/api/timeline", params={"conv_id": self._conv_id})
        except httpx.HTTPError:
            return None
        if answer.status_code != 200:
            return None
        return [
            [entity["id"], entity["kind"], entity["createdAtMs"], entity["updatedAtMs"], entity["props"]]
            for entity in answer.json()["entities"]
        ]

    def _write(self, event: str, **fields: Any) -> None:
        self._journal.write(event, conversation=self._conv_id, **fields)


def _shown(entity: TimelineEntity) -> list[Any]:
    return [entity.id, entity.kind, entity.created_at, entity.updated_at, entity.props]


def _open(timeline: list[TimelineEntity]) -> bool:
    """Whether something may still come of a prompt."""
    entities = [
        Entity(id=one.id, kind=one.kind, position=position, props=one.props)
        for position, one in enumerate(timeline)
    ]
    return any(said.fate is Fate.NOTHING for said in outcomes(entities))


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it happened by then."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def run_chatters(arguments: argparse.Namespace) -> None:
    """Until SIGTERM, and then until every conversation is settled."""
    deployment = msgspec.json.decode(arguments.deployment.read_bytes(), type=Deployment)
    journal = Journal(arguments.journal)
    chance = random.Random(arguments.seed)  # noqa: S311 - what is said
    winding_up = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, winding_up.set)
    sys.stdout.write('{"serves": "chatters"}\n')
    sys.stdout.flush()
    chatters = [
        Chatter(
            arguments.base,
            deployment.chats[number % len(deployment.chats)],
            journal,
            random.Random(chance.random()),  # noqa: S311 - each its own
            restful=number % 4 == 3,
        )
        for number in range(arguments.size)
    ]
    await asyncio.gather(*(chatter.life(winding_up) for chatter in chatters))
    journal.write("done")


def main() -> None:
    """Run the conversations."""
    crowd_process("chatters", "Chat conversations that journal what they are told.", run_chatters)


if __name__ == "__main__":
    main()
