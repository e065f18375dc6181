"""Several session services on one relay and one database: any of them may be asked, one coordinates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from voicethere.adapters.http.app import build_app
from voicethere.adapters.http.auth import BearerAuth
from voicethere.adapters.relay.lease_file import EmbeddedLease
from voicethere.adapters.store.store import SessionRecord, Store, StoreUnavailable
from voicethere.core.ports import QueueUnavailable, RunnerLink
from voicethere.roles.sessions.api import SESSIONS_CORS, sessions_router
from voicethere.roles.sessions.service import SessionService
from voicethere.roles.sessions.signaling import signaling_app, with_signaling
from voicethere.roles.sessions.tokens import JoinTokens
from voicethere.roles.sessions.worker import Worker
from voicethere.testing.clock import ManualClock
from voicethere.testing.keys import issue_key
from voicethere.testing.queue import InMemoryErrorQueue, sample_error
from voicethere.testing.relay import InMemoryRelay
from voicethere.testing.scripted_runner import ScriptedRunner
from voicethere.wire.control_channel import EndReason
from voicethere.wire.control_plane import DeploymentStatus, DeployMode, KeyKind, ValidationStatus
from voicethere.wire.queue import SessionEndedItem
from voicethere.wire.relay import (
    AssignSession,
    CancelSession,
    DeployedAgent,
    EndSession,
    KeepWarm,
    PeerJoinedRoom,
    RunnerHello,
)
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import ProjectSettings, SessionSettings

from .conftest import PATIENCE, SECRET, SETTINGS, Peer, Served, connect, eventually

RUNNER_IS_THERE = {"type": "peer-joined", "peerId": "voice-agent-server"}
RUNNER_LEFT = {"type": "peer-left", "peerId": "voice-agent-server"}


class Service:
    """One session service as a process of its own would be: its own store, hub and lease."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def start(self) -> None:
        cluster = self.cluster
        self.store = await Store.open(cluster.database_url, clock=cluster.clock)
        self.hub = cluster.relay.new_hub()
        # Asked for often, so that a test need not wait for the next term.
        self.lease = EmbeddedLease(cluster.directory / "coordinator.lock", seconds=0.05)
        self.service = SessionService(
            self.store,
            cluster.queue,
            self.hub,
            self.lease,
            JoinTokens(SECRET, cluster.clock),
            cluster.clock,
            SETTINGS,
        )
        self._running = asyncio.create_task(self.service.run())
        await asyncio.wait_for(self.service.ready(), PATIENCE)
        app = build_app(
            [sessions_router(self.service, BearerAuth(self.store.find_key))],
            title="sessions",
            version="0",
            cors=SESSIONS_CORS,
            unavailable=(StoreUnavailable, QueueUnavailable),
        )
        self.server = Served(with_signaling(app, signaling_app(self.service.gateway)))
        await self.server.start()
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.server.port}")

    async def aclose(self) -> None:
        await self.http.aclose()
        await self.service.aclose()
        await self.server.aclose()
        await self.hub.aclose()
        await self.lease.aclose()
        await asyncio.wait_for(self._running, PATIENCE)
        await self.store.aclose()

    async def start_session(self, **body: Any) -> str:
        answer = await self.http.post(
            "/v1/sessions", json={"project_id": self.cluster.project_id} | body, headers=self.cluster.headers
        )
        assert answer.status_code == 202, answer.text
        session_id: str = answer.json()["session_id"]
        return session_id

    async def poll(self, session_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/v1/sessions/{session_id}", headers=self.cluster.headers)
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        return state

    async def until(self, session_id: str, **wanted: Any) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while True:
                state = await self.poll(session_id)
                if all(state.get(key) == value for key, value in wanted.items()):
                    return state

    async def peer(self, credentials: dict[str, Any], peer_id: str = "client-1") -> Peer:
        url = f"ws://127.0.0.1:{self.server.port}/v1/signaling?token={credentials['join_token']}"
        peer = Peer(await connect(url), credentials["room_id"])
        self.cluster.peers.append(peer)
        await peer.join(peer_id)
        return peer


class Cluster:
    """Two services, a worker, and runners as they come."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database_url = f"sqlite:///{directory}/voicethere.db"
        self.clock = ManualClock()
        self.relay = InMemoryRelay()
        self.queue = InMemoryErrorQueue(self.clock)
        self.peers: list[Peer] = []
        self.runners: list[ScriptedRunner] = []
        self.services: list[Service] = []

    async def open(self) -> None:
        self.store = await Store.open(self.database_url, clock=self.clock)
        org_id = await self.store.ensure_default_org()
        self.project_id = (await self.store.create_project(org_id=org_id, name="Shop", slug="shop")).id
        self.headers = {"Authorization": f"Bearer {await issue_key(self.store, org_id, KeyKind.ADMIN)}"}
        self.worker = Worker(self.queue, self.store)
        self._working = asyncio.create_task(self.worker.run())
        self.first, self.second = await self.service(), await self.service()

    async def service(self) -> Service:
        service = Service(self)
        await service.start()
        self.services.append(service)
        return service

    async def runner(self, runner_id: str = "runner-1", **options: Any) -> ScriptedRunner:
        runner = ScriptedRunner(runner_id, **options)
        self.runners.append(runner)
        await self.link(runner)
        return runner

    async def link(self, runner: ScriptedRunner) -> None:
        async def make(hello: Callable[[], RunnerHello]) -> RunnerLink:
            return self.relay.new_link(hello)

        await runner.connect(make)
        await eventually(lambda: self.knows(runner))

    def knows(self, runner: ScriptedRunner) -> bool:
        return any(
            service.service._coordinator is not None
            and runner.runner_id in service.service._coordinator.runners
            for service in self.services
        )

    async def deploy(
        self, *, mode: DeployMode = DeployMode.DRAIN, message: str = "Pardon.", warm: bool = False
    ) -> tuple[str, DeployedAgent]:
        """The deployment's id, and what it froze."""
        build = await self.store.create_build(
            project_id=self.project_id,
            size_bytes=1,
            checksum_sha256="ab" * 32,
            message=None,
            validation_status=ValidationStatus.VALID,
            validation_error=None,
        )
        agent = DeployedAgent(
            project_id=self.project_id,
            build_id=build.id,
            bundle_checksum=build.checksum_sha256,
            mode=Mode.DATA,
            settings=SessionSettings(error_message=message),
            warm_pool_enabled=warm,
        )
        job = await self.store.create_deployment(project_id=self.project_id, build_id=build.id, mode=mode)
        status = DeploymentStatus.ACTIVE if mode is DeployMode.FORCE else DeploymentStatus.COMPLETED
        await self.store.finish_deployment(job.id, status=status, error=None, agent=agent)
        return job.id, agent

    async def until_stored(self, session_id: str, holds: Callable[[SessionRecord], bool]) -> None:
        """Return once the database has the session so; nothing announces it."""
        async with asyncio.timeout(PATIENCE):
            while (record := await self.store.get_session(session_id)) is None or not holds(record):
                pass

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for service in self.services:
            service.service.tick()

    async def stop(self, service: Service) -> None:
        self.services.remove(service)
        await service.aclose()

    async def aclose(self) -> None:
        for peer in self.peers:
            await peer.aclose()
        for runner in self.runners:
            await runner.aclose()
        for service in list(self.services):
            await self.stop(service)
        await self.worker.stop()
        await asyncio.wait_for(self._working, PATIENCE)
        await self.store.aclose()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    await cluster.open()
    try:
        yield cluster
    finally:
        await cluster.aclose()


async def test_one_coordinates_and_both_serve(cluster: Cluster) -> None:
    assert cluster.first.service.coordinates
    assert not cluster.second.service.coordinates
    await cluster.deploy()
    runner = await cluster.runner()
    session_id = await cluster.second.start_session()
    assert (await runner.heard(AssignSession)).session_id == session_id
    credentials = (await cluster.second.until(session_id, status="ready"))["credentials"]
    assert credentials["mode"] == "data"
    assert (await cluster.first.poll(session_id))["status"] == "ready"

    # A client at either of them talks to the same runner.
    here, there = (
        await cluster.first.peer(credentials, "client-1"),
        await cluster.second.peer(credentials, "client-2"),
    )
    assert await here.hear() == RUNNER_IS_THERE
    assert await there.hear() == RUNNER_IS_THERE
    await runner.heard(PeerJoinedRoom, count=2)
    await runner.offer(session_id, credentials["room_id"], "client-2")
    assert (await there.hear())["type"] == "offer"
    await runner.offer(session_id, credentials["room_id"], "client-1")
    assert (await here.hear())["type"] == "offer"
    await runner.close(session_id)
    assert (await here.closed())[0] == 1000
    assert (await there.closed())[0] == 1000


async def test_a_synchronous_start_at_a_service_that_does_not_coordinate(cluster: Cluster) -> None:
    await cluster.deploy()
    await cluster.runner()
    answer = await cluster.second.http.post(
        "/v1/sessions", json={"project_id": cluster.project_id, "async": False}, headers=cluster.headers
    )
    # Its limit is short here: past it the answer is that of an asynchronous start, never a failure.
    assert answer.status_code in (200, 202)


async def test_the_line_goes_on_when_the_coordinator_ends(cluster: Cluster) -> None:
    await cluster.deploy()
    runner = await cluster.runner(capacity=1)
    hosted = await cluster.first.start_session()
    await cluster.first.until(hosted, status="ready")
    waiting = [await service.start_session() for service in (cluster.second, cluster.first, cluster.second)]
    for position, session_id in enumerate(waiting, start=1):
        state = await cluster.second.until(session_id, status="waiting", queue_position=position)
        assert state["waiting_since"]
    cluster.clock.advance(60.0)
    await cluster.stop(cluster.first)
    await eventually(lambda: cluster.second.service.coordinates)
    await eventually(lambda: cluster.knows(runner))
    states = [await cluster.second.poll(session_id) for session_id in waiting]
    assert [state["queue_position"] for state in states] == [1, 2, 3]
    assert all(state["waiting_since"] == "2026-06-19T12:00:00.000Z" for state in states)
    for position, session_id in enumerate(waiting):
        await runner.close(([hosted, *waiting])[position])
        await cluster.second.until(session_id, status="ready")
    assert [m.session_id for m in runner.received if isinstance(m, AssignSession)] == [hosted, *waiting]


async def test_who_does_not_want_to_wait_is_told_by_any_service(cluster: Cluster) -> None:
    await cluster.deploy()
    runner = await cluster.runner(capacity=1)
    hosted = await cluster.second.start_session(wait_for_capacity=False)
    await cluster.second.until(hosted, status="ready")
    cluster.advance(1.0)
    await eventually(lambda: (capacity := cluster.second.service.capacity) is not None and capacity.free == 0)
    answer = await cluster.second.http.post(
        "/v1/sessions",
        json={"project_id": cluster.project_id, "wait_for_capacity": False},
        headers=cluster.headers,
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "CAPACITY_EXCEEDED")
    assert int(answer.headers["retry-after"]) >= 1
    await runner.close(hosted)


async def test_clients_of_a_lost_runner_are_told_at_every_service(cluster: Cluster) -> None:
    await cluster.deploy()
    runner = await cluster.runner()
    session_id = await cluster.first.start_session()
    credentials = (await cluster.first.until(session_id, status="ready"))["credentials"]
    peers = [
        await service.peer(credentials, f"client-{number}")
        for number, service in enumerate((cluster.first, cluster.second))
    ]
    for peer in peers:
        assert await peer.hear() == RUNNER_IS_THERE
    await runner.aclose()
    coordinator = cluster.first.service._coordinator
    assert coordinator is not None
    hosted = coordinator.hosted.get(session_id)
    assert hosted is not None
    await eventually(lambda: hosted.missing_since is not None)
    cluster.advance(3.1)
    for peer in peers:
        envelope = await peer.hear()
        assert (envelope["type"], envelope["code"]) == ("session_error", "RUNNER_INTERNAL")
        assert await peer.hear() == RUNNER_LEFT
        assert (await peer.closed())[0] == 1000


async def test_a_client_is_told_although_the_notice_was_lost(cluster: Cluster) -> None:
    await cluster.deploy()
    runner = await cluster.runner()
    session_id = await cluster.second.start_session()
    credentials = (await cluster.second.until(session_id, status="ready"))["credentials"]
    peer = await cluster.second.peer(credentials)
    assert await peer.hear() == RUNNER_IS_THERE
    await cluster.stop(cluster.first)  # whoever coordinates next has not seen what happens now
    error = sample_error(session_id, cluster.project_id)
    await cluster.queue.put(
        [
            error,
            SessionEndedItem(
                session_id=session_id,
                project_id=cluster.project_id,
                end_reason=EndReason.AGENT_ERROR.value,
                failed=True,
                ended_at=error.record.occurred_at,
            ),
        ]
    )
    runner.sessions.clear()
    await runner.aclose()
    room = cluster.second.service._rooms.get(session_id)
    assert room is not None
    await eventually(lambda: room.absent_since is not None)
    await cluster.until_stored(session_id, lambda record: record.ended_at is not None)
    cluster.advance(3.1)
    envelope = await peer.hear()
    assert (envelope["type"], envelope["code"]) == ("session_error", error.record.code.value)
    assert envelope["message"] == error.record.client_message
    assert await peer.hear() == RUNNER_LEFT


async def test_a_runner_that_lets_go_of_anothers_session_ends_nothing(cluster: Cluster) -> None:
    await cluster.deploy()
    runner = await cluster.runner()
    session_id = await cluster.first.start_session()
    credentials = (await cluster.first.until(session_id, status="ready"))["credentials"]
    confused = await cluster.runner("confused")
    await confused.accept(session_id)
    assert (await confused.heard(CancelSession)).session_id == session_id
    await eventually(lambda: session_id not in confused.sessions)
    peer = await cluster.second.peer(credentials)
    assert await peer.hear() == RUNNER_IS_THERE
    assert session_id in runner.sessions


async def test_an_assignment_that_did_not_arrive_is_sent_again(cluster: Cluster) -> None:
    await cluster.deploy()
    runner = await cluster.runner()
    runner.answer = None  # as if it had never come
    session_id = await cluster.first.start_session()
    await runner.heard(AssignSession)
    runner.answer = True
    await cluster.second.hub.call_roll()
    await cluster.first.until(session_id, status="ready")
    assert [m.session_id for m in runner.received if isinstance(m, AssignSession)] == [session_id] * 2


async def test_no_runner_is_blamed_while_the_relay_is_away(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.deploy()
    runner = await cluster.runner()
    session_id = await cluster.first.start_session()
    await cluster.first.until(session_id, status="ready")
    away = True
    monkeypatch.setattr(type(cluster.first.hub), "linked", property(lambda _: not away))
    for _ in range(10):
        cluster.advance(1.0)  # without giving way: the lease is not looked at meanwhile
    assert cluster.knows(runner)
    away = False
    for _ in range(5):
        cluster.advance(1.0)
    assert cluster.knows(runner)
    cluster.advance(1.0)
    await eventually(lambda: not cluster.knows(runner))


async def test_who_has_lost_the_relay_lets_another_coordinate(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = cluster.first.hub
    linked = type(deaf).linked.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(type(deaf), "linked", property(lambda hub: hub is not deaf and linked(hub)))
    await eventually(lambda: cluster.second.service.coordinates)
    await eventually(lambda: not cluster.first.service.coordinates)
    await cluster.deploy()
    await cluster.runner()
    session_id = await cluster.first.start_session()
    await cluster.first.until(session_id, status="ready")


async def test_a_session_joined_elsewhere_is_not_reaped(cluster: Cluster) -> None:
    await cluster.deploy()
    runner = await cluster.runner()
    session_id = await cluster.first.start_session()
    credentials = (await cluster.first.until(session_id, status="ready"))["credentials"]
    peer = await cluster.second.peer(credentials)
    assert await peer.hear() == RUNNER_IS_THERE
    coordinator = cluster.first.service._coordinator
    assert coordinator is not None
    hosted = coordinator.hosted.get(session_id)
    assert hosted is not None
    await cluster.until_stored(session_id, lambda record: record.joined_at is not None)
    cluster.advance(121.0)
    await eventually(lambda: hosted.claimed)
    assert not [m for m in runner.received if isinstance(m, CancelSession)]


async def test_a_runner_that_drains_gets_no_more_and_keeps_what_it_has(cluster: Cluster) -> None:
    await cluster.deploy()
    leaving = await cluster.runner("leaving", capacity=9)
    kept = await cluster.first.start_session()
    await cluster.first.until(kept, status="ready")
    await leaving.drain()
    coordinator = cluster.first.service._coordinator
    assert coordinator is not None
    await eventually(lambda: coordinator.runners.free == 0)
    waiting = await cluster.second.start_session()
    await cluster.second.until(waiting, status="waiting")
    staying = await cluster.runner("staying", capacity=1)
    await cluster.second.until(waiting, status="ready")
    assert (leaving.sessions, staying.sessions) == ([kept], [waiting])


# ---------------------------------------------------------------------- deploys and warm children


async def test_a_forced_deploy_ends_older_sessions_and_then_is_completed(cluster: Cluster) -> None:
    await cluster.deploy(message="old")
    runner = await cluster.runner()
    runner.obeys_cancel = False
    older = await cluster.first.start_session()
    await cluster.first.until(older, status="ready")
    deployment_id, agent = await cluster.deploy(mode=DeployMode.FORCE, message="new")
    newer = await cluster.second.start_session()
    await cluster.second.until(newer, status="ready")
    cluster.advance(1.0)
    assert await runner.heard(EndSession) == EndSession(
        session_id=older, end_reason=EndReason.RUNNER_SHUTDOWN
    )
    assert [job.id for job in await cluster.store.active_deployments()] == [deployment_id]
    await runner.close(older)
    await _completed(cluster)
    assert await cluster.store.deployed_agent(cluster.project_id) == agent
    assert [m.session_id for m in runner.received if isinstance(m, EndSession)] == [older]


async def test_a_forced_deploy_does_not_wait_for_ever(cluster: Cluster) -> None:
    await cluster.deploy(message="old")
    runner = await cluster.runner()
    runner.obeys_cancel = False
    stuck = await cluster.first.start_session()
    await cluster.first.until(stuck, status="ready")
    await cluster.deploy(mode=DeployMode.FORCE, message="new")
    cluster.advance(1.0)
    await runner.heard(EndSession)
    coordinator = cluster.first.service._coordinator
    assert coordinator is not None
    await eventually(lambda: not coordinator._looking)
    cluster.advance(30.0)
    await _completed(cluster)


async def _completed(cluster: Cluster) -> None:
    async with asyncio.timeout(PATIENCE):
        while await cluster.store.active_deployments():
            cluster.advance(1.0)
            await asyncio.sleep(0.005)


async def test_a_forced_deploy_is_carried_out_by_the_next_coordinator(cluster: Cluster) -> None:
    await cluster.deploy(message="old")
    runner = await cluster.runner()
    runner.obeys_cancel = False
    older = await cluster.second.start_session()
    await cluster.second.until(older, status="ready")
    cluster.clock.advance(1.0)
    await cluster.deploy(mode=DeployMode.FORCE, message="new")
    await cluster.stop(cluster.first)
    await eventually(lambda: cluster.knows(runner))
    cluster.advance(1.0)
    assert (await runner.heard(EndSession)).session_id == older


async def test_runners_are_told_what_to_keep_warm(cluster: Cluster) -> None:
    runner = await cluster.runner()
    _, agent = await cluster.deploy(warm=True)
    cluster.advance(1.0)
    assert (await runner.heard(KeepWarm)).agents == [agent]
    late = await cluster.runner("late")
    coordinator = cluster.first.service._coordinator
    assert coordinator is not None
    await eventually(lambda: not coordinator._looking)
    cluster.advance(1.0)
    assert (await late.heard(KeepWarm)).agents == [agent]
    await eventually(lambda: not coordinator._looking)
    assert await cluster.store.undeploy(cluster.project_id)
    cluster.advance(1.0)
    assert (await runner.heard(KeepWarm, count=2)).agents == []


# ---------------------------------------------------------------------- what a project allows


async def test_a_project_may_have_a_number_of_sessions_a_month(cluster: Cluster) -> None:
    await cluster.deploy()
    await cluster.runner()
    await cluster.store.put_project_settings(cluster.project_id, ProjectSettings(monthly_session_limit=1))
    first = await cluster.first.http.post(
        "/v1/sessions",
        json={"project_id": cluster.project_id},
        headers=cluster.headers | {"Idempotency-Key": "one"},
    )
    assert first.status_code == 202
    answer = await cluster.second.http.post(
        "/v1/sessions", json={"project_id": cluster.project_id}, headers=cluster.headers
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "MONTHLY_USAGE_EXCEEDED")
    # It is the nineteenth of June, noon: July begins in eleven and a half days.
    assert int(answer.headers["retry-after"]) == 11.5 * 24 * 3600
    again = await cluster.second.http.post(
        "/v1/sessions",
        json={"project_id": cluster.project_id},
        headers=cluster.headers | {"Idempotency-Key": "one"},
    )
    assert again.json()["session_id"] == first.json()["session_id"]
    cluster.clock.advance(11.5 * 24 * 3600)
    await cluster.second.start_session()


async def test_pages_of_other_origins_may_be_kept_out(cluster: Cluster) -> None:
    await cluster.deploy()
    await cluster.runner()
    await cluster.store.put_project_settings(
        cluster.project_id, ProjectSettings(allowed_origins=["https://shop.example"])
    )
    statuses = {}
    for origin in ("https://shop.example", "https://SHOP.example", "https://evil.example", "null"):
        answer = await cluster.first.http.post(
            "/v1/sessions",
            json={"project_id": cluster.project_id},
            headers=cluster.headers | {"Origin": origin},
        )
        statuses[origin] = answer.status_code
        assert answer.headers["access-control-allow-origin"]  # a page can read why
    assert statuses == {
        "https://shop.example": 202,
        "https://SHOP.example": 202,
        "https://evil.example": 403,
        "null": 403,
    }
    await cluster.first.start_session()  # whoever is no page has no origin
