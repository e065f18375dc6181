"""A real session service on a real server, with a real relay and store; the clock stands still."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from voicethere.adapters.http.app import build_app
from voicethere.adapters.http.auth import BearerAuth, token_hash
from voicethere.adapters.relay.embedded import EmbeddedRelayHub, EmbeddedRunnerLink
from voicethere.adapters.relay.lease_file import EmbeddedLease
from voicethere.adapters.store.store import Store, StoreUnavailable
from voicethere.core.ports import QueueUnavailable, RunnerLink
from voicethere.roles.sessions.api import SESSIONS_CORS, sessions_router
from voicethere.roles.sessions.coordinator import Coordinator
from voicethere.roles.sessions.hosted import Hosted
from voicethere.roles.sessions.service import SessionService
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.roles.sessions.signaling import UVICORN_SETTINGS, signaling_app, with_signaling
from voicethere.roles.sessions.tokens import JoinTokens
from voicethere.roles.sessions.worker import Worker
from voicethere.testing.clock import ManualClock
from voicethere.testing.keys import issue_key
from voicethere.testing.queue import InMemoryErrorQueue
from voicethere.testing.scripted_runner import ScriptedRunner
from voicethere.wire.control_plane import (
    Build,
    DeploymentStatus,
    DeployMode,
    KeyKind,
    Project,
    SessionErrorRow,
    ValidationStatus,
)
from voicethere.wire.relay import AssignSession, DeployedAgent, RunnerHello
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import SessionSettings

SECRET = b"integration-secret-of-32-bytes-or-more"
SERVICE_TOKEN = "service-token-of-the-tests"
PATIENCE = 20.0
"""Seconds for what a busy machine takes its time for."""
SETTINGS = SessionServiceSettings(sync_start_seconds=0.05, poll_hold_seconds=0.05, tick_seconds=3600.0)
"""The clock is moved by tests, which then call `tick` themselves."""


class Served:
    """An ASGI app on a real uvicorn, on a free port of the loopback."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app, log_config=None, lifespan="off", timeout_graceful_shutdown=2, **(UVICORN_SETTINGS | settings)
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)

    async def start(self) -> None:
        # Not `serve`: its loop looks for its end ten times a second only.
        await self._server.startup(sockets=[self._socket])

    async def aclose(self) -> None:
        await asyncio.wait_for(self._server.shutdown(sockets=[self._socket]), PATIENCE)


class Platform:
    """Everything around a session service that a test needs."""

    def __init__(self, directory: Path, settings: SessionServiceSettings) -> None:
        self.directory = directory
        self.settings = settings
        self.clock = ManualClock()
        self.queue = InMemoryErrorQueue(self.clock)
        self.tokens = JoinTokens(SECRET, self.clock)
        self.store: Store
        self.org_id: str
        self.project: Project
        self.key: str
        self.client_key: str
        self._runners: list[ScriptedRunner] = []
        self._sockets: list[Peer] = []

    async def open(self) -> None:
        self.store = await Store.open(f"sqlite:///{self.directory}/voicethere.db", clock=self.clock)
        self.org_id = await self.store.ensure_default_org()
        self.project = await self.new_project("shop")
        self.key = await self.new_key(KeyKind.ADMIN)
        self.client_key = await self.new_key(KeyKind.CLIENT, self.project.id)
        self.worker = Worker(self.queue, self.store)
        self._working = asyncio.create_task(self.worker.run())
        await self.start_service()

    async def start_service(self) -> None:
        """Start the session service, as a new process would."""
        self.hub = await EmbeddedRelayHub.start(self.directory / "relay.sock")
        self.lease = EmbeddedLease(self.directory / "coordinator.lock")
        self.service = SessionService(
            self.store, self.queue, self.hub, self.lease, self.tokens, self.clock, self.settings
        )
        self._running = asyncio.create_task(self.service.run())
        await asyncio.wait_for(self.service.ready(), PATIENCE)
        http = build_app(
            [
                sessions_router(
                    self.service,
                    BearerAuth(self.store.find_key, service_token_hash=token_hash(SERVICE_TOKEN)),
                )
            ],
            title="sessions",
            version="0",
            cors=SESSIONS_CORS,
            unavailable=(StoreUnavailable, QueueUnavailable),
        )
        self.server = Served(with_signaling(http, signaling_app(self.service.gateway)))
        await self.server.start()
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.server.port}",
            headers={"Authorization": f"Bearer {self.key}"},
        )

    @property
    def coordinator(self) -> Coordinator:
        """What the service knows as the coordinator."""
        coordinator = self.service._coordinator
        assert coordinator is not None
        return coordinator

    def hosted_by(self, session_id: str) -> Hosted | None:
        """The session as the coordinator has it; None where it is over."""
        return self.coordinator.hosted.get(session_id)

    async def stop_service(self) -> None:
        """Stop it; runners and the database go on."""
        await self.http.aclose()
        await self.service.aclose()
        await self.server.aclose()
        await self.hub.aclose()
        await self.lease.aclose()
        await asyncio.wait_for(self._running, PATIENCE)

    async def aclose(self) -> None:
        for peer in self._sockets:
            await peer.aclose()
        for runner in self._runners:
            await runner.aclose()
        await self.stop_service()
        await self.worker.stop()
        await asyncio.wait_for(self._working, PATIENCE)
        await self.store.aclose()

    # ------------------------------------------------------------------ what is there

    async def new_project(self, slug: str, *, org_id: str | None = None) -> Project:
        return await self.store.create_project(org_id=org_id or self.org_id, name=slug.title(), slug=slug)

    async def new_key(self, kind: KeyKind, project_id: str | None = None) -> str:
        return await issue_key(self.store, self.org_id, kind, project_id)

    async def new_build(
        self, *, status: ValidationStatus = ValidationStatus.VALID, project_id: str | None = None
    ) -> Build:
        return await self.store.create_build(
            project_id=project_id or self.project.id,
            size_bytes=10,
            checksum_sha256="ab" * 32,
            message=None,
            validation_status=status,
            validation_error=None if status is ValidationStatus.VALID else "it is broken",
        )

    async def deploy(self, *, mode: Mode = Mode.VOICE, project_id: str | None = None) -> DeployedAgent:
        project = project_id or self.project.id
        build = await self.new_build(project_id=project)
        agent = DeployedAgent(
            project_id=project,
            build_id=build.id,
            bundle_checksum=build.checksum_sha256,
            mode=mode,
            settings=SessionSettings(error_message="Pardon."),
            environment={"PLACE": "here"},
            secrets={"TOKEN": "tell-nobody-this"},
        )
        job = await self.store.create_deployment(project_id=project, build_id=build.id, mode=DeployMode.DRAIN)
        await self.store.finish_deployment(job.id, status=DeploymentStatus.COMPLETED, error=None, agent=agent)
        return agent

    async def runner(self, runner_id: str = "runner-1", **options: Any) -> ScriptedRunner:
        """A linked runner."""
        runner = ScriptedRunner(runner_id, **options)
        await self.link(runner)
        return runner

    async def link(self, runner: ScriptedRunner) -> None:
        async def make(hello: Callable[[], RunnerHello]) -> RunnerLink:
            return await EmbeddedRunnerLink.start(self.directory / "relay.sock", hello=hello)

        await runner.connect(make)
        self._runners.append(runner)
        await eventually(lambda: runner.runner_id in self.coordinator.runners)

    # ------------------------------------------------------------------ what clients do

    async def post(self, **body: Any) -> httpx.Response:
        headers = body.pop("headers", {})
        return await self.http.post(
            "/v1/sessions", json={"project_id": self.project.id} | body, headers=headers
        )

    async def start(self, **body: Any) -> str:
        """A session's id."""
        answer = await self.post(**body)
        assert answer.status_code == 202, answer.text
        session_id: str = answer.json()["session_id"]
        return session_id

    async def poll(self, session_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/v1/sessions/{session_id}")
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        return state

    async def until(self, session_id: str, **wanted: Any) -> dict[str, Any]:
        """Poll until the state has these values."""
        state: dict[str, Any] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while True:
                    state = await self.poll(session_id)
                    if all(state.get(key) == value for key, value in wanted.items()):
                        return state
                    await asyncio.sleep(0.005)
        pytest.fail(f"never {wanted}: {state}")

    async def hosted(self, runner: ScriptedRunner, **body: Any) -> dict[str, Any]:
        """The credentials of a ready session that this runner hosts."""
        session_id = await self.start(**body)
        await runner.heard(AssignSession, where=lambda message: message.session_id == session_id)
        state = await self.until(session_id, status="ready")
        credentials: dict[str, Any] = state["credentials"]
        return credentials

    async def peer(
        self, credentials: dict[str, Any], peer_id: str | None = "client-1", *, token: str | None = None
    ) -> Peer:
        """A signaling socket, joined as `peer_id` unless that is None."""
        url = f"{credentials['signaling_url']}?token={token or credentials['join_token']}"
        peer = Peer(await connect(url), credentials["room_id"])
        self._sockets.append(peer)
        if peer_id is not None:
            await peer.join(peer_id)
        return peer

    async def errors(self, session_id: str, *, count: int = 1) -> list[SessionErrorRow]:
        """The session's stored errors, once its end is stored too."""
        record = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while record is None or record.ended_at is None:
                    await asyncio.sleep(0.005)
                    record = await self.store.get_session(session_id)
        assert record is not None
        assert record.ended_at is not None, f"the session never ended: {record}"
        page = await self.store.session_errors(self.project.id, session_id, limit=10, cursor=None)
        assert len(page.errors) == count, page.errors
        return list(page.errors)


class Peer:
    """A client's end of a signaling socket."""

    def __init__(self, socket: ClientConnection, room_id: str) -> None:
        self.socket = socket
        self.room_id = room_id
        self.peer_id = ""

    async def send(self, message: Any) -> None:
        await self.socket.send(
            message if isinstance(message, str | bytes) else msgspec.json.encode(message).decode()
        )

    async def join(self, peer_id: str) -> None:
        self.peer_id = peer_id
        await self.send({"type": "join", "room": self.room_id, "peerId": peer_id})

    async def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = msgspec.json.decode(await asyncio.wait_for(self.socket.recv(), PATIENCE))
        return message

    async def closed(self) -> tuple[int | None, str | None]:
        """Code and reason, once the socket is closed; what came before is dropped."""
        await asyncio.wait_for(self.socket.wait_closed(), PATIENCE)
        return self.socket.close_code, self.socket.close_reason

    async def aclose(self) -> None:
        await self.socket.close()


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


@pytest.fixture
def service_settings() -> SessionServiceSettings:
    """Overridden by tests that need others."""
    return SETTINGS


@pytest.fixture
async def platform(tmp_path: Path, service_settings: SessionServiceSettings) -> AsyncIterator[Platform]:
    platform = Platform(tmp_path, service_settings)
    await platform.open()
    try:
        yield platform
    finally:
        await platform.aclose()
