"""Real gateways on a real server, store and relay; what runners say is scripted."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn

from tests.integration.gateway.talking import ChatApi
from voicethere.adapters.http.app import build_app
from voicethere.adapters.http.auth import BearerAuth, token_hash
from voicethere.adapters.http.request_ids import RequestIds
from voicethere.adapters.relay.embedded import EmbeddedRelayHub, EmbeddedRunnerLink
from voicethere.adapters.relay.shared import HubView, SharedHub
from voicethere.adapters.store.store import SessionRecord, Store, StoreUnavailable
from voicethere.cli.http_server import KEEP_ALIVE_SECONDS
from voicethere.core.clock import SystemClock
from voicethere.core.ports import Clock, RunnerLink
from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.convert import make_record
from voicethere.roles.gateway.access import Access, KeyOutOfPath
from voicethere.roles.gateway.api import CHAT_CORS, PLAIN_ERRORS_UNDER, chat_router
from voicethere.roles.gateway.gateway import Gateway
from voicethere.roles.gateway.settings import GatewaySettings, SocketLimits
from voicethere.roles.gateway.sockets import ChatWebSockets, chat_sockets, with_chat
from voicethere.testing.keys import issue_key
from voicethere.wire.control_plane import KeyKind
from voicethere.wire.queue import ErrorItem, SessionEndedItem
from voicethere.wire.relay import (
    ChatBody,
    ChatOutput,
    ChatPrompt,
    ChatPromptTaken,
    ChatTaken,
    RunnerHello,
    SessionMoved,
    SessionOver,
    SessionWanted,
    ToRunner,
)
from voicethere.wire.session_api import Mode, ProvisioningStatus

SERVICE_TOKEN = "service-token-of-the-tests"
RUNNER = "runner-of-the-tests"
SETTINGS = GatewaySettings(
    recheck_seconds=0.1,
    look_seconds=0.1,
    recover_seconds=0.1,
    orphan_seconds=0.3,
    # Longer than any test: a machine that is busy would take what is only late for lost, and make up for it
    # (`IMPATIENT` is for tests of that).
    again_seconds=600.0,
    gap_seconds=600.0,
    sweep_seconds=600.0,
    sockets=SocketLimits(of_process=40, of_project=30, of_conversation=20, queue_frames=50),
)
IMPATIENT = msgspec.structs.replace(SETTINGS, gap_seconds=0.2, sweep_seconds=0.1)
"""Of gateways that soon look whether frames of others were lost on their way."""


class ScriptedChats:
    """The session service and the runner of chats, as far as a gateway sees them.

    Sessions that are wanted become ready where `hosts` is true; prompts are taken where `takes` is true. What
    is said is numbered, and said until it is taken.
    """

    def __init__(self, store: Store, view: HubView) -> None:
        self.store = store
        self.hosts = True
        self.takes = True
        self.prompts: list[ChatPrompt] = []
        self.taken: dict[str, int] = {}
        self.said: dict[str, int] = {}
        self.sessions: list[str] = []
        self._view = view
        self._link: RunnerLink | None = None
        self._changed = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, path: Path) -> None:
        def hello() -> RunnerHello:
            return RunnerHello(runner_id=RUNNER, capacity=1000)

        self._link = await EmbeddedRunnerLink.start(path, hello=hello)
        self._tasks = [
            asyncio.create_task(self._host(), name="scripted session service"),
            asyncio.create_task(self._read(self._link), name="scripted runner"),
        ]

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        if self._link is not None:
            await self._link.aclose()

    async def _host(self) -> None:
        async for notice in self._view.notices():
            if isinstance(notice, SessionWanted):
                self.sessions.append(notice.session_id)
                if self.hosts:
                    await self.make_ready(notice.session_id)

    async def make_ready(self, session_id: str) -> None:
        await self.store.update_session(
            session_id, status=ProvisioningStatus.READY, runner_id=RUNNER, mode=Mode.DATA
        )
        await self._view.publish(SessionMoved(session_id=session_id, settled=True))

    async def _read(self, link: RunnerLink) -> None:
        async for message in link.messages():
            await self._react(message)

    async def _react(self, message: ToRunner) -> None:
        assert self._link is not None
        async with self._changed:
            if isinstance(message, ChatPrompt):
                self.prompts.append(message)
                if self.takes:
                    await self._link.send(
                        ChatPromptTaken(session_id=message.session_id, number=message.number)
                    )
            elif isinstance(message, ChatTaken):
                self.taken[message.session_id] = max(self.taken.get(message.session_id, 0), message.number)
            self._changed.notify_all()

    async def prompted(self, text: str) -> str:
        """The session that was given this prompt."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: any(prompt.text == text for prompt in self.prompts))
        return next(prompt.session_id for prompt in self.prompts if prompt.text == text)

    def number(self, session_id: str) -> int:
        """The number of the session's next output."""
        self.said[session_id] = self.said.get(session_id, 0) + 1
        return self.said[session_id]

    async def send(
        self, session_id: str, number: int, body: ChatBody, *, again: bool = False, prompts: int = 0
    ) -> None:
        """One output, on its way once."""
        assert self._link is not None
        await self._link.send(
            ChatOutput(session_id=session_id, number=number, body=body, again=again, prompts=prompts)
        )

    async def say(self, session_id: str, *bodies: ChatBody) -> None:
        """Outputs, numbered on; returns once all are stored."""
        for body in bodies:
            await self.send(session_id, self.number(session_id), body)
        await self.stored(session_id, self.said[session_id])

    async def stored(self, session_id: str, number: int) -> None:
        """A gateway has said that it stored everything up to this output."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: self.taken.get(session_id, 0) >= number)

    async def end(self, session_id: str, reason: str, *, error: SessionErrorCode | None = None) -> str:
        """The session ends without a word of its own, as the worker stores it; the id of its error's row."""
        record = await self.store.get_session(session_id)
        assert record is not None
        items: list[ErrorItem | SessionEndedItem] = []
        error_id = ""
        if error is not None:
            made = make_record(
                "what an operator reads",
                code=error,
                error_id=uuid.uuid4().hex,
                session_id=session_id,
                project_id=record.project_id,
                build_id=None,
                occurred_at=SystemClock().now(),
            )
            error_id = made.id
            items.append(ErrorItem(record=made))
        items.append(
            SessionEndedItem(
                session_id=session_id,
                project_id=record.project_id,
                end_reason=reason,
                failed=error is not None,
                ended_at=record.created_at,
            )
        )
        await self.store.commit_batch(items, [])
        await self._view.publish(SessionOver(session_id=session_id))
        return error_id


class Served:
    """A gateway on a uvicorn of its own."""

    def __init__(self, world: World, settings: GatewaySettings, store: Store, clock: Clock) -> None:
        self._world = world
        self._settings = settings
        self._store = store
        self._clock = clock

    async def start(self) -> None:
        world = self._world
        self.view = world.shared.view(lambda message: True)
        access = Access(self._store, BearerAuth(self._store.find_key, token_hash(SERVICE_TOKEN)))
        self.gateway = Gateway(self._store, self.view, access, self._clock, self._settings)
        self.running = asyncio.create_task(self.gateway.run(), name="gateway")
        http: Any = build_app(
            [chat_router(self.gateway)],
            title="chat",
            version="0",
            cors=CHAT_CORS,
            unavailable=(StoreUnavailable,),
            plain_errors_under=PLAIN_ERRORS_UNDER,
        )
        app = KeyOutOfPath(with_chat(http, RequestIds(chat_sockets(self.gateway))))
        config = uvicorn.Config(
            app,
            port=0,
            log_config=None,
            lifespan="off",
            # As the platform's own servers: longer than clients keep theirs.
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=2,
            ws=ChatWebSockets,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup()
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        await self.gateway.drain()
        await self.gateway.aclose()
        await asyncio.wait_for(self.running, 10)
        await self.view.aclose()
        await asyncio.wait_for(self._server.shutdown(), 10)


class World:
    """A store, a relay, scripted chats, and as many gateways as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.AsyncExitStack()

    async def open(self) -> None:
        self.store = await Store.open(f"sqlite:///{self.folder}/voicethere.db")
        self._stack.push_async_callback(self.store.aclose)
        self.shared = SharedHub(await EmbeddedRelayHub.start(self.folder / "relay.sock"))
        self._stack.push_async_callback(self.shared.aclose)
        self.chats = ScriptedChats(self.store, self.shared.view(lambda message: False))
        self.shared.start()
        await self.chats.open(self.folder / "relay.sock")
        self._stack.push_async_callback(self.chats.aclose)
        self.org_id = await self.store.ensure_default_org()
        project = await self.store.create_project(org_id=self.org_id, name="shop", slug="shop")
        self.project_id = project.id
        self.client_key = await self.new_key(KeyKind.CLIENT, self.project_id)
        self.org_key = await self.new_key(KeyKind.ADMIN)

    async def new_key(self, kind: KeyKind, project_id: str | None = None) -> str:
        return await issue_key(self.store, self.org_id, kind, project_id)

    async def gateway(
        self,
        settings: GatewaySettings = SETTINGS,
        *,
        store: Store | None = None,
        clock: Clock | None = None,
    ) -> Served:
        served = Served(self, settings, store or self.store, clock or SystemClock())
        await served.start()
        self._stack.push_async_callback(served.stop)
        return served

    def client(self, served: Served, *, base: str | None = None, **headers: str) -> ChatApi:
        """A chat client of this gateway, by the client key unless another `base` is given."""
        api = ChatApi(f"{served.url}/c/{base or self.client_key}", headers=headers)
        self._stack.push_async_callback(api.aclose)
        return api

    async def conversation(self, api: ChatApi, conv_id: str, prompt: str = "hello") -> str:
        """Say the first thing in a conversation; the session that it started."""
        await api.accepted(conv_id, prompt)
        return await self.chats.prompted(prompt)

    async def session(self, session_id: str) -> SessionRecord:
        found = await self.store.get_session(session_id)
        assert found is not None
        return found

    async def aclose(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.open()
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture
async def served(world: World) -> Served:
    return await world.gateway()


@pytest.fixture
async def api(world: World, served: Served) -> ChatApi:
    return world.client(served)
