"""The soak's traffic: callers and chats at a steady rate, residents, readers of the API, deploys."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping

import httpx

from tools.soak.agents import bundle
from tools.soak.caller import Caller, World
from tools.soak.chat_kinds import CHAT_KINDS, ChatKind
from tools.soak.chatter import Chatter
from tools.soak.kinds import KINDS, Kind
from tools.soak.settling import Surprise
from voicethere.chat import ChatHttpError
from voicethere.client import ConnectError
from voicethere.testing.platform_process import Deployed, PlatformFailed

_ALL = (*KINDS, *CHAT_KINDS)
MOST_AT_ONCE = 24
KEPT_WARM = ("data", "voice")
"""Projects for which every runner keeps a child ready."""
RESIDENT_EVERY = 2.0
CHAT_EVERY = 10.0
"""The resident of a chat talks less: all that is said stays in its timeline."""
READ_EVERY = 0.5
_SURPRISES = (
    Surprise,
    ConnectError,
    ChatHttpError,
    PlatformFailed,
    AssertionError,
    httpx.HTTPError,
    OSError,
)


class Traffic:
    """Made once for a soak. `projects` are those that the kinds name."""

    def __init__(self, world: World, projects: Mapping[str, Deployed], *, seed: int) -> None:
        self._world = world
        self._projects = projects
        self._account = world.account
        self._chance = random.Random(seed)  # noqa: S311 - the same mix for the same seed
        self._build = 1

    # ------------------------------------------------------------------ phases

    async def phase(self, seconds: float, rate: float) -> None:
        """Callers at `rate` a second for so long; returns once the last of them is gone."""
        loop = asyncio.get_running_loop()
        began, deck = loop.time(), list[Kind | ChatKind]()
        slots = asyncio.Semaphore(MOST_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for number in range(max(1, int(seconds * rate))):
                await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
                left = began + seconds - loop.time()
                if left <= 0:
                    break
                await slots.acquire()
                deck = deck or self._deck(left)
                task = group.create_task(self._one(deck.pop()))
                task.add_done_callback(lambda _: slots.release())

    async def one_of_each(self) -> None:
        """So that what is made once is there; those that take long are left out."""
        for name in KEPT_WARM:
            await self._deploy(self._projects[name], "drain")  # the setting holds from the next deploy on
        for kind in _ALL:
            if kind.seconds < 20:
                await self._one(kind)

    def _deck(self, seconds_left: float) -> list[Kind | ChatKind]:
        """Each kind as often as its weight, shuffled; the slow ones only where there is time for them."""
        deck = [kind for kind in _ALL for _ in range(kind.weight) if kind.seconds <= max(10, seconds_left)]
        self._chance.shuffle(deck)
        return deck

    async def _one(self, kind: Kind | ChatKind) -> None:
        if isinstance(kind, ChatKind):
            await self._chat(kind)
        else:
            await self._call(kind)

    async def _chat(self, kind: ChatKind) -> None:
        chatter = Chatter(self._world, self._projects[kind.project])
        self._account.sessions[kind.name] += 1
        self._account.conversations += 1
        self._account.caused.update(kind.caused)
        try:
            await kind.act(chatter)
            await chatter.settle(stored=list(kind.caused), reason=kind.reason)
        except _SURPRISES as surprise:
            self._account.differs(f"{kind.name}, session {chatter.session_id}: {_words(surprise)}")

    async def _call(self, kind: Kind) -> None:
        caller = Caller(self._world, self._projects[kind.project])
        self._account.sessions[kind.name] += 1
        self._account.caused.update(kind.caused)
        try:
            async with caller.session() as session:
                await kind.act(caller, session)
            await caller.settle(
                told=kind.heard, stored=list(kind.caused), reason=kind.reason, repeats=kind.repeats
            )
        except _SURPRISES as surprise:
            self._account.differs(f"{kind.name}, session {caller.session_id}: {_words(surprise)}")

    # ------------------------------------------------------------------ all the time

    @contextlib.asynccontextmanager
    async def always(self) -> AsyncIterator[None]:
        """The residents are connected and talk, somebody reads the API, until this is left."""
        over = asyncio.Event()
        here = [asyncio.Event(), asyncio.Event(), asyncio.Event()]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resident("resident data", over, here[0]))
            group.create_task(self._resident("resident voice", over, here[1]))
            group.create_task(self._resident_chat(over, here[2]))
            group.create_task(self._reads(over))
            for arrived in here:
                await arrived.wait()
            try:
                yield
            finally:
                over.set()

    async def _resident(self, name: str, over: asyncio.Event, here: asyncio.Event) -> None:
        caller = Caller(self._world, self._projects[name])
        self._account.sessions[name] += 1
        try:
            async with caller.session() as session:
                here.set()
                turn = 0
                while not await _within(over, RESIDENT_EVERY):
                    turn += 1
                    await caller.chats(session, f"turn {turn}")
                    if session.mode.has_audio:
                        await caller.is_understood()
            await caller.settle(told=[], stored=[], reason="client_close_signal")
        except _SURPRISES as surprise:
            self._account.differs(f"{name}, session {caller.session_id}: {_words(surprise)}")
        finally:
            here.set()

    async def _resident_chat(self, over: asyncio.Event, here: asyncio.Event) -> None:
        """One socket, and one session, for all of it."""
        chatter = Chatter(self._world, self._projects["resident chat"])
        self._account.sessions["resident chat"] += 1
        self._account.conversations += 1
        try:
            async with chatter.present() as conversation:
                turn = 0
                while turn == 0 or not await _within(over, CHAT_EVERY):
                    turn += 1
                    await chatter.says(conversation, f"say {turn}", str(turn))
                    here.set()
                await chatter.says(conversation, "bye", "Goodbye.")
            await chatter.settle(stored=[], reason="agent_disconnected")
        except _SURPRISES as surprise:
            self._account.differs(f"resident chat, session {chatter.session_id}: {_words(surprise)}")
        finally:
            here.set()

    async def _reads(self, over: asyncio.Event) -> None:
        """An operator's page that refreshes, and a client with a key that is none."""
        project = self._projects["data"].project_id
        paths = [
            "/projects",
            f"/projects/{project}",
            f"/projects/{project}/session-errors?limit=100",
            f"/projects/{project}/sessions",
            f"/projects/{project}/builds",
        ]
        while not await _within(over, READ_EVERY):
            path = self._chance.choice(paths)
            try:
                await self._world.operator.ask("GET", path)
                refused = await self._world.http.post(
                    f"{self._world.service()}/v1/sessions",
                    json={"project_id": project},
                    headers={"Authorization": "Bearer vthc_none"},
                )
            except _SURPRISES as surprise:
                self._account.differs(f"GET {path}: {_words(surprise)}")
                continue
            self._account.requests[path.partition("?")[0].rsplit("/", 1)[-1]] += 1
            if refused.status_code != 401:
                self._account.differs(f"a start with a wrong key was answered with {refused.status_code}")

    # ------------------------------------------------------------------ deploys

    async def deploys(self, every: float, over: asyncio.Event) -> None:
        """A new build of the callers' project every so often, and one by force that ends a session."""
        while not await _within(over, every):
            try:
                await self._deploy(self._projects["data"], "drain")
                await self._forced()
            except _SURPRISES as surprise:
                self._account.differs(f"a deploy: {_words(surprise)}")

    async def _forced(self) -> None:
        deployed = self._projects["moved"]
        caller = Caller(self._world, deployed)
        self._account.sessions["moved by a deploy"] += 1
        async with caller.session() as session:
            await self._deploy(deployed, "force")
            await caller.over(session)
        await caller.settle(told=["WEBRTC_CONNECTION_CLOSED"], stored=[], reason="runner_shutdown")

    async def _deploy(self, deployed: Deployed, mode: str) -> None:
        self._build += 1
        ask, at = self._world.operator.ask, f"/projects/{deployed.project_id}"
        build = await ask("POST", f"{at}/builds", files={"bundle": ("agent.py", bundle(self._build))})
        await ask("POST", f"{at}/promote", json={"build_id": build["id"]})
        job = await ask("POST", "/deployments", json={"project_id": deployed.project_id, "mode": mode})
        self._account.deploys += 1
        async with asyncio.timeout(60):
            while job["status"] not in ("completed", "failed"):
                await asyncio.sleep(0.1)
                job = await ask("GET", f"/deployments/{job['id']}")
        if job["status"] == "failed":
            raise Surprise(f"deploy {job['id']} failed: {job['error']}")


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it happened by then."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _words(surprise: BaseException) -> str:
    return f"{type(surprise).__name__}: {surprise}"[:400]
