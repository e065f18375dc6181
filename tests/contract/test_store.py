"""What the store promises to the roles, on every database that it supports."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from voicethere.adapters.store import (
    CommittedBatch,
    RetentionDone,
    SessionRecord,
    Store,
    StoreConflict,
    StoreUnavailable,
    Suppression,
    WaitingPlace,
    retention,
)
from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.times import iso_from_epoch
from voicethere.testing.clock import ManualClock
from voicethere.testing.postgres_server import postgres_server
from voicethere.testing.queue import sample_error
from voicethere.wire.control_plane import (
    Build,
    DeploymentStatus,
    DeployMode,
    KeyKind,
    Project,
    ValidationStatus,
)
from voicethere.wire.queue import ErrorItem, QueueItem, SessionEndedItem, SuppressedItem
from voicethere.wire.relay import DeployedAgent
from voicethere.wire.session_api import FailureCode, Mode, ProvisioningStatus
from voicethere.wire.settings import ProjectSettings, SessionSettings

HASH = "ab" * 32


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def new_database() -> Iterator[Callable[[], str]]:
    """Gives the URL of a new PostgreSQL database: a copy of one that was migrated once, on one server."""
    with asyncio.Runner() as runner:
        manager = postgres_server()
        server = runner.run(manager.__aenter__())

        async def migrate() -> None:
            await server.execute("CREATE DATABASE migrated")
            await (await Store.open(server.url_of("migrated"))).aclose()

        def copy() -> str:
            name = f"store_{uuid.uuid4().hex}"
            runner.run(server.execute(f"CREATE DATABASE {name} TEMPLATE migrated"))
            return server.url_of(name)

        try:
            runner.run(migrate())
            yield copy
        finally:
            runner.run(manager.__aexit__(None, None, None))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/voicethere.db"
    new_database: Callable[[], str] = request.getfixturevalue("new_database")
    return new_database()


@pytest.fixture
async def store(url: str, clock: ManualClock) -> AsyncIterator[Store]:
    store = await Store.open(url, clock=clock)
    yield store
    await store.aclose()


@pytest.fixture
async def org(store: Store) -> str:
    return await store.ensure_default_org()


@pytest.fixture
async def project(store: Store, org: str) -> Project:
    return await store.create_project(org_id=org, name="Pizza", slug="pizza")


@pytest.fixture
async def session(store: Store, project: Project) -> str:
    record = await store.create_session(
        session_id="session-1",
        project_id=project.id,
        build_id=None,
        customer_context={"tier": "pro"},
        idempotency_key=None,
    )
    return record.id


async def make_build(store: Store, project: Project) -> Build:
    return await store.create_build(
        project_id=project.id,
        size_bytes=3,
        checksum_sha256=HASH,
        message="first",
        validation_status=ValidationStatus.VALID,
        validation_error=None,
    )


def ended(
    session_id: str, project_id: str, *, failed: bool = False, reason: str = "client"
) -> SessionEndedItem:
    return SessionEndedItem(
        session_id=session_id,
        project_id=project_id,
        end_reason=reason,
        failed=failed,
        ended_at="2026-06-19T12:00:00.000Z",
    )


# ------------------------------------------------------------------ orgs and keys


async def test_there_is_one_default_org(store: Store) -> None:
    assert len({await store.ensure_default_org() for _ in range(3)}) == 1


async def test_a_key_is_found_by_its_hash_until_it_expires(
    store: Store, org: str, clock: ManualClock
) -> None:
    expires_at = iso_from_epoch(clock.now() + 60)
    key = await store.create_key(
        org_id=org,
        name="ci",
        kind=KeyKind.ADMIN,
        project_id=None,
        token_hash=HASH,
        prefix="vth_ab",
        expires_at=expires_at,
    )
    assert key.key is msgspec.UNSET
    assert key.expires_at == expires_at
    found = await store.find_key(HASH)
    assert found is not None
    assert (found.id, found.kind, found.org_id, found.project_id) == (key.id, "org", org, None)
    clock.advance(60)
    assert await store.find_key(HASH) is None
    assert await store.find_key("cd" * 32) is None
    assert list(await store.list_keys(org)) == [key]


async def test_a_client_key_is_bound_to_a_project_and_can_be_revoked(
    store: Store, org: str, project: Project, clock: ManualClock
) -> None:
    key = await store.create_key(
        org_id=org,
        name="web",
        kind=KeyKind.CLIENT,
        project_id=project.id,
        token_hash=HASH,
        prefix="vthc_ab",
        expires_at=None,
    )
    found = await store.find_key(HASH)
    assert found is not None
    assert (found.kind, found.project_id) == ("client", project.id)
    assert not await store.revoke_key("another org", key.id)
    assert not await store.revoke_key(org, "no such key")
    assert await store.revoke_key(org, key.id)
    revoked_at = clock.wire_time()
    clock.advance(5)
    assert await store.revoke_key(org, key.id)
    assert await store.find_key(HASH) is None
    assert [key.revoked_at for key in await store.list_keys(org)] == [revoked_at]


async def test_keys_that_make_no_sense_are_refused(store: Store, org: str) -> None:
    async def create(kind: KeyKind, project_id: str | None) -> object:
        return await store.create_key(
            org_id=org,
            name="k",
            kind=kind,
            project_id=project_id,
            token_hash=HASH,
            prefix="vth_",
            expires_at=None,
        )

    with pytest.raises(ValueError, match="bound to one project"):
        await create(KeyKind.CLIENT, None)
    with pytest.raises(LookupError, match="there is no project 'nope'"):
        await create(KeyKind.CLIENT, "nope")
    await create(KeyKind.ADMIN, None)
    with pytest.raises(StoreConflict):
        await create(KeyKind.ADMIN, None)


# ------------------------------------------------------------------ projects and what is configured


async def test_a_project_is_seen_by_its_own_org_only(store: Store, org: str, project: Project) -> None:
    assert uuid.UUID(project.id).version == 4
    assert not project.is_deployed
    assert await store.get_project(project.id, org_id=org) == project
    assert await store.get_project(project.id, org_id="another") is None
    assert list(await store.list_projects(org)) == [project]
    assert list(await store.list_projects("another")) == []
    assert not await store.delete_project(project.id, org_id="another")


async def test_a_slug_is_taken_once(store: Store, org: str, project: Project) -> None:
    with pytest.raises(StoreConflict, match="'pizza' already"):
        await store.create_project(org_id=org, name="Other", slug="pizza")
    results = await asyncio.gather(
        *(store.create_project(org_id=org, name="Race", slug="race") for _ in range(5)),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["Project"] + ["StoreConflict"] * 4


async def test_settings_have_defaults_and_are_kept(store: Store, project: Project) -> None:
    assert await store.get_session_settings(project.id) == SessionSettings()
    assert await store.get_project_settings(project.id) == ProjectSettings()
    sessions = SessionSettings(error_message="Désolé \U0001f635", client_stack_traces=False)
    settings = ProjectSettings(mode=Mode.DATA)
    await store.put_session_settings(project.id, sessions)
    await store.put_project_settings(project.id, settings)
    assert await store.get_session_settings(project.id) == sessions
    assert await store.get_project_settings(project.id) == settings
    for call in (
        store.get_session_settings("nope"),
        store.get_project_settings("nope"),
        store.put_session_settings("nope", sessions),
        store.put_project_settings("nope", settings),
    ):
        with pytest.raises(LookupError, match="no project 'nope'"):
            await call


async def test_environment_and_secrets_are_kept_apart(store: Store, project: Project) -> None:
    await store.put_environment(project.id, "REGION", "eu")
    await store.put_environment(project.id, "REGION", "us")
    await store.put_secret(project.id, "API_KEY", "s3cret")
    assert await store.get_environment(project.id) == {"REGION": "us"}
    assert await store.get_secrets(project.id) == {"API_KEY": "s3cret"}
    assert await store.get_secrets("another") == {}
    assert not await store.delete_environment(project.id, "API_KEY")
    assert await store.delete_environment(project.id, "REGION")
    assert await store.delete_secret(project.id, "API_KEY")
    assert not await store.delete_secret(project.id, "API_KEY")
    assert (await store.get_environment(project.id), await store.get_secrets(project.id)) == ({}, {})
    with pytest.raises(LookupError):
        await store.put_secret("nope", "A", "b")


# ------------------------------------------------------------------ builds and deployments


async def test_builds_are_listed_newest_first(store: Store, project: Project) -> None:
    builds = [await make_build(store, project) for _ in range(3)]
    assert list(await store.list_builds(project.id)) == builds[::-1]
    assert await store.get_build(project.id, builds[0].id) == builds[0]
    assert await store.get_build("another", builds[0].id) is None


async def test_only_a_build_of_its_own_can_be_a_projects_active_one(
    store: Store, org: str, project: Project
) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")
    build = await make_build(store, project)
    with pytest.raises(LookupError, match="has no build"):
        await store.set_active_build(other.id, build.id)
    await store.set_active_build(project.id, build.id)
    found = await store.get_project(project.id, org_id=org)
    assert found is not None
    assert found.active_build_id == build.id


async def test_a_completed_deployment_freezes_what_sessions_run(
    store: Store, org: str, project: Project, clock: ManualClock
) -> None:
    build = await make_build(store, project)
    deployment = await store.create_deployment(
        project_id=project.id, build_id=build.id, mode=DeployMode.DRAIN
    )
    assert (deployment.status, deployment.completed_at) == (DeploymentStatus.QUEUED, None)
    active = await store.finish_deployment(
        deployment.id, status=DeploymentStatus.ACTIVE, error=None, agent=None
    )
    assert (active.status, active.completed_at) == (DeploymentStatus.ACTIVE, None)
    assert await store.deployed_agent(project.id) is None
    agent = DeployedAgent(
        project_id=project.id,
        build_id=build.id,
        bundle_checksum=HASH,
        mode=Mode.VOICE,
        settings=SessionSettings(error_message="Oh no."),
        environment={"REGION": "eu"},
        secrets={"API_KEY": "s3cret"},
    )
    clock.advance(2)
    done = await store.finish_deployment(
        deployment.id, status=DeploymentStatus.COMPLETED, error=None, agent=agent
    )
    assert (done.status, done.completed_at) == (DeploymentStatus.COMPLETED, clock.wire_time())
    assert await store.deployed_agent(project.id) == agent
    found = await store.get_project(project.id, org_id=org)
    assert found is not None
    assert (found.is_deployed, found.deployed_build_id) == (True, build.id)
    assert found.deployed_at == clock.wire_time()
    again = await store.finish_deployment(
        deployment.id, status=DeploymentStatus.FAILED, error="too late", agent=None
    )
    assert again == done == await store.get_deployment(deployment.id, org_id=org)
    assert await store.get_deployment(deployment.id, org_id="another") is None
    assert await store.undeploy(project.id)
    assert not await store.undeploy(project.id)
    assert await store.deployed_agent(project.id) is None


def an_agent(project: Project, build_id: str = "b1", *, warm: bool = False) -> DeployedAgent:
    return DeployedAgent(
        project_id=project.id,
        build_id=build_id,
        bundle_checksum=HASH,
        mode=Mode.DATA,
        settings=SessionSettings(),
        warm_pool_enabled=warm,
    )


async def test_a_deployment_takes_effect_once(store: Store, project: Project) -> None:
    agents = [an_agent(project, name) for name in ("b1", "b2")]
    first, second = [
        await store.create_deployment(project_id=project.id, build_id=None, mode=DeployMode.FORCE)
        for _ in range(2)
    ]
    active = await store.finish_deployment(
        first.id, status=DeploymentStatus.ACTIVE, error=None, agent=agents[0]
    )
    assert (active.completed_at, active.build_id) == (None, "b1")
    assert await store.deployed_agent(project.id) == agents[0]
    assert list(await store.active_deployments()) == [active]
    await store.finish_deployment(second.id, status=DeploymentStatus.COMPLETED, error=None, agent=agents[1])
    done = await store.finish_deployment(
        first.id, status=DeploymentStatus.COMPLETED, error=None, agent=agents[0]
    )
    assert (done.status, done.completed_at is None) == (DeploymentStatus.COMPLETED, False)
    assert await store.deployed_agent(project.id) == agents[1]
    assert list(await store.active_deployments()) == []


async def test_an_active_deployment_that_took_effect_completes_by_itself(
    store: Store, project: Project
) -> None:
    deployment = await store.create_deployment(project_id=project.id, build_id=None, mode=DeployMode.FORCE)
    await store.finish_deployment(
        deployment.id, status=DeploymentStatus.ACTIVE, error=None, agent=an_agent(project)
    )
    await store.undeploy(project.id)
    done = await store.finish_deployment(
        deployment.id, status=DeploymentStatus.COMPLETED, error=None, agent=None
    )
    assert done.status is DeploymentStatus.COMPLETED
    assert await store.deployed_agent(project.id) is None


async def test_the_builds_that_were_in_service_are_told_newest_first(store: Store, project: Project) -> None:
    for build_id, status in (
        ("b1", DeploymentStatus.COMPLETED),
        ("b2", DeploymentStatus.FAILED),
        ("b3", DeploymentStatus.ACTIVE),
        ("b1", DeploymentStatus.COMPLETED),
        ("b4", DeploymentStatus.QUEUED),
    ):
        job = await store.create_deployment(project_id=project.id, build_id=build_id, mode=DeployMode.DRAIN)
        agent = None if status is DeploymentStatus.FAILED else an_agent(project, build_id)
        if status is not DeploymentStatus.QUEUED:
            await store.finish_deployment(job.id, status=status, error=None, agent=agent)
    await store.undeploy_as_job(project.id)
    assert await store.served_builds(project.id) == ["b1", "b3", "b1"]
    assert await store.served_builds(project.id, limit=1) == ["b1"]


async def test_agents_that_want_a_warm_child_are_found_newest_first(
    store: Store, org: str, clock: ManualClock
) -> None:
    async def deploy(agent: DeployedAgent) -> None:
        deployment = await store.create_deployment(
            project_id=agent.project_id, build_id=None, mode=DeployMode.DRAIN
        )
        await store.finish_deployment(
            deployment.id, status=DeploymentStatus.COMPLETED, error=None, agent=agent
        )
        clock.advance(1)

    projects = [await store.create_project(org_id=org, name=name, slug=name) for name in "abc"]
    warm = [an_agent(project, warm=True) for project in projects]
    await deploy(warm[0])
    await deploy(an_agent(projects[1]))
    await deploy(warm[2])
    assert await store.warm_agents() == [warm[2], warm[0]]
    assert await store.warm_agents(limit=1) == [warm[2]]
    await deploy(an_agent(projects[2]))
    await store.undeploy(projects[0].id)
    assert await store.warm_agents() == []


async def test_a_failed_deployment_leaves_the_last_one_in_place(store: Store, project: Project) -> None:
    agent = DeployedAgent(
        project_id=project.id, build_id="b1", bundle_checksum=HASH, mode=Mode.DATA, settings=SessionSettings()
    )
    first, second, third = [
        await store.create_deployment(project_id=project.id, build_id=None, mode=DeployMode.FORCE)
        for _ in range(3)
    ]
    await store.finish_deployment(first.id, status=DeploymentStatus.COMPLETED, error=None, agent=agent)
    failed = await store.finish_deployment(
        second.id, status=DeploymentStatus.FAILED, error="it does not load", agent=None
    )
    assert failed.error == "it does not load"
    assert await store.deployed_agent(project.id) == agent
    foreign = msgspec.structs.replace(agent, project_id="another")
    for bad in (None, foreign):
        with pytest.raises(ValueError, match="of its own project"):
            await store.finish_deployment(third.id, status=DeploymentStatus.COMPLETED, error=None, agent=bad)
    with pytest.raises(LookupError, match="no deployment"):
        await store.finish_deployment("nope", status=DeploymentStatus.FAILED, error=None, agent=None)


async def test_an_undeploy_is_a_job_too(store: Store, org: str, project: Project, clock: ManualClock) -> None:
    assert await store.undeploy_as_job(project.id) is None
    agent = DeployedAgent(
        project_id=project.id, build_id="b1", bundle_checksum=HASH, mode=Mode.DATA, settings=SessionSettings()
    )
    deployment = await store.create_deployment(project_id=project.id, build_id="b1", mode=DeployMode.DRAIN)
    await store.finish_deployment(deployment.id, status=DeploymentStatus.COMPLETED, error=None, agent=agent)
    job = await store.undeploy_as_job(project.id)
    assert job is not None
    assert (job.status, job.build_id) == (DeploymentStatus.COMPLETED, None)
    assert job.completed_at == clock.wire_time()
    assert await store.get_deployment(job.id, org_id=org) == job
    assert await store.deployed_agent(project.id) is None


# ------------------------------------------------------------------ sessions


async def test_a_session_takes_its_steps_and_then_stands_still(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    created = await store.get_session(session)
    assert created is not None
    assert (created.status, created.customer_context) == (ProvisioningStatus.QUEUED, {"tier": "pro"})
    clock.advance(1)
    ready = await store.update_session(
        session, status=ProvisioningStatus.READY, build_id="b1", runner_id="runner-1"
    )
    assert ready is not None
    assert (ready.status, ready.build_id, ready.runner_id) == (ProvisioningStatus.READY, "b1", "runner-1")
    assert ready.completed_at == ready.updated_at == clock.wire_time()
    late = await store.update_session(
        session, status=ProvisioningStatus.FAILED, failure_code=FailureCode.TIMEOUT, mode=Mode.DATA
    )
    assert late == ready
    assert await store.update_session("nope", status=ProvisioningStatus.READY) is None


async def test_a_failed_session_stays_failed(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    failed = await store.update_session(
        session,
        status=ProvisioningStatus.FAILED,
        failure_code=FailureCode.TIMEOUT,
        failure_message="too slow",
        mode=Mode.VOICE_DATA,
    )
    assert failed is not None
    assert (failed.failure_code, failed.failure_message) == (FailureCode.TIMEOUT, "too slow")
    assert (failed.failed, failed.mode) == (True, Mode.VOICE_DATA)
    assert await store.update_session(session, status=ProvisioningStatus.READY) == failed
    row = await store.get_session_row(project.id, session)
    assert row is not None
    assert (row.status, row.ended_at) == ("failed", clock.wire_time())
    assert await store.get_session_row("another", session) is None


async def make_sessions(store: Store, project: Project, *names: str) -> list[SessionRecord]:
    return [
        await store.create_session(
            session_id=name, project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
        )
        for name in names
    ]


async def test_places_in_the_line_only_fall(store: Store, project: Project, clock: ManualClock) -> None:
    made = await make_sessions(store, project, "a", "b", "c", "d")
    assert [record.number for record in made] == sorted(record.number for record in made)
    for name in "abcd":
        assert await store.waiting_place(name) is None
        await store.update_session(name, status=ProvisioningStatus.WAITING)
    since = clock.wire_time()

    async def places() -> list[int | None]:
        found = [await store.waiting_place(name) for name in "abcd"]
        return [None if place is None else place.position for place in found]

    assert await places() == [1, 2, 3, 4]
    await store.update_session("a", status=ProvisioningStatus.PROVISIONING)
    assert await places() == [None, 2, 3, 4]
    clock.advance(3)
    await store.update_session("a", status=ProvisioningStatus.WAITING)
    assert await places() == [1, 2, 3, 4]
    again = await store.waiting_place("a")
    assert again == WaitingPlace(position=1, waiting_since=since, last_seen=since)
    await store.update_session("a", status=ProvisioningStatus.READY)
    await store.commit_batch([ended("b", project.id)], [])
    await store.update_session("c", status=ProvisioningStatus.FAILED)
    assert await places() == [None, None, None, 1]
    assert await store.waiting_place("nope") is None


async def test_who_waits_and_is_seen_no_more_expires(
    store: Store, project: Project, clock: ManualClock
) -> None:
    await make_sessions(store, project, "queued", "waits", "left", "hosted")
    for name in ("waits", "left"):
        await store.update_session(name, status=ProvisioningStatus.WAITING)
    await store.update_session("hosted", status=ProvisioningStatus.READY)
    clock.advance(10)
    for name in ("queued", "waits", "hosted", "nope"):
        await store.session_seen(name)
    place = await store.waiting_place("waits")
    assert place is not None
    assert place.last_seen == clock.wire_time() > place.waiting_since
    assert await store.expired_waiters(clock.wire_time()) == ["left"]
    clock.advance(1)
    assert await store.expired_waiters(clock.wire_time()) == ["waits", "left"]
    queued = await store.get_session("queued")
    hosted = await store.get_session("hosted")
    assert queued is not None
    assert hosted is not None
    assert (queued.last_seen, hosted.last_seen) == (place.last_seen, None)
    assert list(await store.queued_sessions()) == [queued]


async def test_sessions_that_are_not_over_are_counted_by_status(store: Store, project: Project) -> None:
    assert await store.open_sessions_by_status() == {}
    await make_sessions(store, project, "a", "b", "c", "d")
    await store.update_session("a", status=ProvisioningStatus.READY)
    await store.update_session("b", status=ProvisioningStatus.READY)
    await store.commit_batch([ended("b", project.id)], [])
    assert await store.open_sessions_by_status() == {"queued": 2, "ready": 1}


async def test_the_first_time_that_a_client_joins_is_kept(
    store: Store, session: str, clock: ManualClock
) -> None:
    joined = clock.wire_time()
    for _ in range(2):
        await store.session_joined(session)
        clock.advance(1)
    record = await store.get_session(session)
    assert record is not None
    assert record.joined_at == joined
    await store.session_joined("nope")


async def test_a_session_says_whether_it_would_wait(store: Store, project: Project, session: str) -> None:
    waits = await store.get_session(session)
    impatient = await store.create_session(
        session_id="now or never",
        project_id=project.id,
        build_id=None,
        customer_context=None,
        idempotency_key=None,
        wait_for_capacity=False,
    )
    assert waits is not None
    assert (waits.wait_for_capacity, impatient.wait_for_capacity) == (True, False)
    assert (waits.mode, waits.waiting_since, waits.last_seen, waits.joined_at) == (None,) * 4


async def test_an_idempotency_key_gives_the_same_session_within_its_project(
    store: Store, org: str, project: Project
) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")

    async def create(session_id: str, project_id: str, key: str | None) -> str:
        record = await store.create_session(
            session_id=session_id,
            project_id=project_id,
            build_id=None,
            customer_context=None,
            idempotency_key=key,
        )
        return record.id

    made = await asyncio.gather(*(create(f"s{n}", project.id, "k") for n in range(5)))
    assert len(set(made)) == 1
    assert await create("another", other.id, "k") == "another"
    with pytest.raises(StoreConflict, match="'another' is taken"):
        await create("another", project.id, None)
    with pytest.raises(StoreConflict, match="'another' is taken"):
        await create("another", project.id, "new key")
    with pytest.raises(LookupError, match="no project"):
        await create("s9", "nope", None)


async def test_a_repeated_request_is_found_before_anything_is_made(store: Store, project: Project) -> None:
    assert await store.find_repeated_session(project.id, "k") is None
    made = await store.create_session(
        session_id="s", project_id=project.id, build_id=None, customer_context=None, idempotency_key="k"
    )
    assert await store.find_repeated_session(project.id, "k") == made
    assert await store.find_repeated_session("another", "k") is None


async def test_sessions_without_an_end_are_found_oldest_first(
    store: Store, project: Project, session: str
) -> None:
    for name in ("b", "a"):
        await store.create_session(
            session_id=name, project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
        )
    await store.update_session("a", status=ProvisioningStatus.FAILED)
    await store.commit_batch([ended("b", project.id)], [])
    assert [record.id for record in await store.unfinished_sessions()] == [session, "a"]


async def test_sessions_are_listed_newest_first_within_a_window(
    store: Store, project: Project, clock: ManualClock
) -> None:
    times = []
    for number in range(4):
        times.append(clock.wire_time())
        for half in "ab":  # two of the same millisecond
            await store.create_session(
                session_id=f"{number}{half}",
                project_id=project.id,
                build_id=None,
                customer_context=None,
                idempotency_key=None,
            )
        clock.advance(1)

    async def listed(start: str | None, end: str | None, limit: int = 100) -> list[str]:
        return [row.id for row in await store.list_sessions(project.id, start=start, end=end, limit=limit)]

    assert await listed(None, None) == ["3b", "3a", "2b", "2a", "1b", "1a", "0b", "0a"]
    assert await listed(times[1], times[3]) == ["2b", "2a", "1b", "1a"]
    assert await listed(None, None, limit=3) == ["3b", "3a", "2b"]
    with pytest.raises(ValueError, match="not a time like"):
        await listed("yesterday", None)
    with pytest.raises(ValueError, match="limit must be"):
        await listed(None, None, limit=0)


# ------------------------------------------------------------------ what comes off the queue


async def test_an_error_becomes_exactly_one_row(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    item = sample_error(session, project.id, occurred_at=iso_from_epoch(clock.now() - 1.5))
    first = await store.commit_batch([item, item], [])
    assert first == CommittedBatch(inserted=1, duplicates=1, dead=0, ended=0)
    assert await store.commit_batch([item], []) == CommittedBatch(inserted=0, duplicates=1, dead=0, ended=0)
    (row,) = (await store.project_errors(project.id, limit=20, cursor=None)).errors
    record = item.record
    assert msgspec.to_builtins(row) == {
        "id": record.id,
        "orchestrator_session_id": session,
        "source": "agent",
        "code": "AGENT_HANDLER_FAILED",
        "message": record.message,
        "stack_trace": record.stack,
        "created_at": clock.wire_time(),
        "client_message": record.client_message,
        "build_id": None,
        "recoverable": False,
        "customer_context": {"userId": "u_123"},
        "occurred_at": record.occurred_at,
        "details": {"hook": "on_user_speech_final"},
    }


async def test_the_first_end_of_a_session_wins_and_no_step_follows(
    store: Store, project: Project, session: str
) -> None:
    first = await store.commit_batch([ended(session, project.id, failed=True, reason="agent_failed")], [])
    again = await store.commit_batch([ended(session, project.id, reason="client_disconnected")], [])
    assert (first.ended, again.ended) == (1, 0)
    record = await store.get_session(session)
    assert record is not None
    assert (record.end_reason, record.failed) == ("agent_failed", True)
    assert record.ended_at == "2026-06-19T12:00:00.000Z"
    assert await store.update_session(session, status=ProvisioningStatus.READY) == record
    row = await store.get_session_row(project.id, session)
    assert row is not None
    assert (row.status, row.ended_at, row.end_reason) == ("failed", record.ended_at, "agent_failed")


async def test_a_session_that_ended_well_is_ended(store: Store, project: Project, session: str) -> None:
    row = await store.get_session_row(project.id, session)
    assert row is not None
    assert (row.status, row.ended_at) == ("active", None)
    await store.commit_batch([ended(session, project.id)], [])
    (row,) = await store.list_sessions(project.id, start=None, end=None, limit=1)
    assert (row.status, row.end_reason) == ("ended", "client")


async def test_what_belongs_nowhere_is_buried_and_takes_no_neighbour_along(
    store: Store, org: str, project: Project, session: str
) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")
    items = [
        sample_error("nope", project.id),
        sample_error(session, project.id),
        sample_error(session, other.id),
        ended("nope", project.id),
        ended(session, project.id),
    ]
    committed = await store.commit_batch(items, [(b"\xff" * 100_000, "not an item: " + "x" * 5000)])
    assert committed == CommittedBatch(inserted=1, duplicates=0, dead=4, ended=1)
    letters = await store.dead_letters()
    assert [letter.problem[:60] for letter in letters] == [
        "there is no session 'nope' (it, or its project, may be delet",
        f"the session 'session-1' is not of the project '{other.id}'"[:60],
        "there is no session 'nope' (it, or its project, may be delet",
        ("not an item: " + "x" * 60)[:60],
    ]
    assert (len(letters[3].data), letters[3].size_bytes) == (64 * 1024, 100_000)
    assert len(letters[3].problem) == 1000
    assert msgspec.json.decode(letters[2].data, type=ErrorItem) == items[0]
    again = await store.commit_batch(items, [(b"\xff" * 100_000, "not an item")])
    assert again == CommittedBatch(inserted=0, duplicates=1, dead=0, ended=0)
    assert len(await store.dead_letters()) == 4


async def test_a_row_that_the_database_refuses_does_not_lose_the_others(
    store: Store, project: Project, session: str
) -> None:
    good = [sample_error(session, project.id) for _ in range(3)]
    # No message that was decoded can be like this, but a caller in the same process could make one.
    bad = sample_error(session, project.id, message=5 + 2**70)
    committed = await store.commit_batch([good[0], bad, *good[1:]], [])
    assert committed == CommittedBatch(inserted=3, duplicates=0, dead=1, ended=0)
    (letter,) = await store.dead_letters()
    assert letter.problem.startswith("the database refuses this")


async def test_clocks_that_are_wrong_are_clamped_and_the_report_is_kept(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    now = clock.now()
    reported = {
        "ahead": iso_from_epoch(now + 3600),
        "ancient": "0001-01-01T00:00:00.000+23:59",
        "behind": iso_from_epoch(now - 90 * 86400),
        "fine": iso_from_epoch(now - 5),
        "junk": "a quarter past",
    }
    await store.commit_batch(
        [sample_error(session, project.id, id=name, occurred_at=time) for name, time in reported.items()], []
    )
    page = await store.project_errors(project.id, limit=20, cursor=None)
    rows = {row.id: row for row in page.errors}
    assert [row.id for row in page.errors][:3] == ["ahead", "junk", "ancient"]
    assert rows["ahead"].occurred_at == iso_from_epoch(now + 60)
    assert rows["behind"].occurred_at == iso_from_epoch(now - 30 * 86400)
    assert rows["fine"].occurred_at == reported["fine"]
    assert rows["junk"].occurred_at == rows["ancient"].occurred_at == iso_from_epoch(now)
    assert rows["ahead"].details["reported_occurred_at"] == reported["ahead"]
    assert "reported_occurred_at" not in rows["fine"].details
    assert all(row.created_at == clock.wire_time() for row in page.errors)


async def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert await store.commit_batch([], []) == CommittedBatch(inserted=0, duplicates=0, dead=0, ended=0)


async def test_a_big_batch_is_one_batch(store: Store, project: Project, session: str) -> None:
    items = [sample_error(session, project.id) for _ in range(1200)]
    items += [sample_error(f"unknown-{number}", project.id) for number in range(1200)]
    committed = await store.commit_batch(items, [])
    assert committed == CommittedBatch(inserted=1200, duplicates=0, dead=1200, ended=0)


def suppressed(project_id: str, name: str, *, count: int = 7, at: str) -> SuppressedItem:
    return SuppressedItem(
        id=name,
        project_id=project_id,
        code=SessionErrorCode.AGENT_HANDLER_FAILED,
        count=count,
        first_at=at,
        last_at=at,
    )


async def test_suppressed_errors_are_counted_once(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    old, new = iso_from_epoch(clock.now() - 9), clock.wire_time()
    items: list[QueueItem] = [
        suppressed(project.id, "z", at=old),
        sample_error(session, project.id),
        suppressed(project.id, "a", count=3, at=new),
        suppressed("nope", "b", at=new),
        suppressed(project.id, "c", count=0, at=new),
    ]
    committed = await store.commit_batch(items, [])
    assert committed == CommittedBatch(inserted=1, duplicates=0, dead=2, ended=0, suppressed=2)
    again = await store.commit_batch(items, [])
    assert again == CommittedBatch(inserted=0, duplicates=1, dead=0, ended=0)
    assert list(await store.suppressed_errors(project.id)) == [
        Suppression(code="AGENT_HANDLER_FAILED", count=3, first_at=new, last_at=new),
        Suppression(code="AGENT_HANDLER_FAILED", count=7, first_at=old, last_at=old),
    ]
    assert len(await store.suppressed_errors(project.id, limit=1)) == 1
    assert [letter.problem for letter in await store.dead_letters()] == [
        "a count of suppressed errors is from 1 to 9007199254740992",
        "there is no project 'nope' (it may be deleted)",
    ]


async def test_a_letter_that_is_set_aside_may_be_buried_anew_beside_it(store: Store) -> None:
    """So that whoever replays it can delete it afterwards, and not what failed again meanwhile."""
    await store.commit_batch([], [(b"junk", "first time")])
    (letter,) = await store.dead_letters()
    assert not await store.delete_dead_letter(letter.number, only_set_aside=True)
    assert await store.set_dead_letter_aside(letter.number)
    assert await store.set_dead_letter_aside(letter.number)
    assert not await store.set_dead_letter_aside(letter.number + 1)
    kept = await store.get_dead_letter(letter.number)
    assert kept is not None
    assert (kept.data, kept.problem) == (b"junk", "first time")
    assert (await store.commit_batch([], [(b"junk", "second time")])).dead == 1
    assert await store.delete_dead_letter(letter.number, only_set_aside=True)
    (again,) = await store.dead_letters()
    assert (again.data, again.problem) == (b"junk", "second time")


async def test_dead_letters_are_numbered_and_can_be_taken_out(store: Store) -> None:
    assert await store.count_dead_letters() == 0
    await store.commit_batch([], [(f"{n}".encode(), "poison") for n in range(4)] + [(b"x" * 70_000, "big")])
    letters = await store.dead_letters(limit=2)
    assert [(letter.data[:1], letter.truncated) for letter in letters] == [(b"x", True), (b"3", False)]
    older = await store.dead_letters(before=letters[-1].number)
    assert [letter.data for letter in older] == [b"2", b"1", b"0"]
    assert await store.get_dead_letter(older[0].number) == older[0]
    assert await store.delete_dead_letter(older[0].number)
    assert not await store.delete_dead_letter(older[0].number)
    assert await store.get_dead_letter(older[0].number) is None
    assert await store.count_dead_letters() == 4


# ------------------------------------------------------------------ retention


async def fill(store: Store, project: Project, session: str, clock: ManualClock, ages: range) -> None:
    """Errors of one project, so many days old; the name of each is its age."""
    await store.commit_batch(
        [
            sample_error(
                session,
                project.id,
                id=f"{project.slug}-{age}",
                occurred_at=iso_from_epoch(clock.now() - age * 86400),
            )
            for age in ages
        ],
        [],
    )


async def kept(store: Store, project: Project) -> list[str]:
    page = await store.project_errors(project.id, limit=100, cursor=None)
    return [row.id.partition("-")[2] for row in page.errors]


async def test_old_errors_go_and_each_project_has_its_own_age(
    store: Store, org: str, project: Project, session: str, clock: ManualClock
) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")
    await store.put_project_settings(other.id, ProjectSettings(retention_days=3))
    await make_sessions(store, other, "of the other")
    await fill(store, project, session, clock, range(10))
    await fill(store, other, "of the other", clock, range(10))
    nothing = await store.apply_retention(default_days=0, default_errors=0, batch=1)
    assert nothing == RetentionDone(deleted_errors=1, deleted_sessions=0, deleted_dead_letters=0, more=True)
    done = await store.apply_retention(default_days=7, default_errors=0)
    assert done == RetentionDone(deleted_errors=7, deleted_sessions=0, deleted_dead_letters=0, more=False)
    assert await kept(store, project) == ["0", "1", "2", "3", "4", "5", "6", "7"]
    assert await kept(store, other) == ["0", "1", "2", "3"]


async def test_a_project_keeps_so_many_errors_the_newest(
    store: Store, org: str, project: Project, session: str, clock: ManualClock
) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")
    await store.put_project_settings(other.id, ProjectSettings(retention_errors=2))
    await make_sessions(store, other, "of the other")
    await fill(store, project, session, clock, range(6))
    await fill(store, other, "of the other", clock, range(6))
    rounds = []
    while True:
        rounds.append(await store.apply_retention(default_days=0, default_errors=5, batch=3))
        if not rounds[-1].more:
            break
    assert [done.deleted_errors for done in rounds] == [4, 1]
    assert await kept(store, project) == ["0", "1", "2", "3", "4"]
    assert await kept(store, other) == ["0", "1"]


async def test_many_errors_are_counted_in_short_steps(
    store: Store, project: Project, session: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_STRIDE", 3)
    await fill(store, project, session, clock, range(12))
    for keep, left in ((12, 12), (7, 7), (6, 6), (1, 1)):
        await store.apply_retention(default_days=0, default_errors=keep)
        assert await kept(store, project) == [str(age) for age in range(left)]


async def test_a_project_with_more_than_one_step_of_everything_is_deleted(
    store: Store, org: str, project: Project, session: str, clock: ManualClock
) -> None:
    await make_sessions(store, project, *(f"s{n}" for n in range(5)))
    await store.commit_batch([sample_error(session, project.id) for _ in range(5001)], [])
    assert await store.delete_project(project.id, org_id=org)
    assert await store.get_session("s1") is None
    assert list((await store.project_errors(project.id, limit=1, cursor=None)).errors) == []


async def test_what_ended_long_ago_goes_and_what_goes_on_stays(
    store: Store, project: Project, clock: ManualClock
) -> None:
    await make_sessions(store, project, "ended", "goes on", "waits")
    over = SessionEndedItem(
        session_id="ended",
        project_id=project.id,
        end_reason="client",
        failed=False,
        ended_at=clock.wire_time(),
    )
    at = clock.wire_time()
    await store.commit_batch([over, suppressed(project.id, "old", at=at)], [(b"old", "poison")])
    clock.advance(5 * 86400)
    await store.commit_batch([suppressed(project.id, "new", at=clock.wire_time())], [(b"new", "poison")])
    done = await store.apply_retention(default_days=4, default_errors=0)
    assert done == RetentionDone(deleted_errors=0, deleted_sessions=1, deleted_dead_letters=1, more=False)
    assert [record.id for record in await store.unfinished_sessions()] == ["goes on", "waits"]
    assert await store.get_session("ended") is None
    assert [letter.data for letter in await store.dead_letters()] == [b"new"]
    assert [row.first_at for row in await store.suppressed_errors(project.id)] == [clock.wire_time()]


async def test_retention_by_several_at_once_deletes_nothing_too_much(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    await fill(store, project, session, clock, range(20))
    done = await asyncio.gather(
        *(store.apply_retention(default_days=0, default_errors=8, batch=5) for _ in range(6))
    )
    assert sum(part.deleted_errors for part in done) <= 12
    while (await store.apply_retention(default_days=0, default_errors=8)).more:
        pass
    assert await kept(store, project) == [str(age) for age in range(8)]
    with pytest.raises(ValueError, match="batch of at least 1"):
        await store.apply_retention(default_days=0, default_errors=0, batch=0)


# ------------------------------------------------------------------ the platform's own


async def test_a_platform_secret_is_made_once(store: Store) -> None:
    made: list[bytes] = []

    def make() -> bytes:
        made.append(uuid.uuid4().bytes)
        return made[-1]

    first = await store.platform_secret("join-tokens", make)
    assert made == [first]
    assert {await store.platform_secret("join-tokens", make) for _ in range(3)} == {first}
    assert await store.platform_secret("other", make) == made[1] != first
    at_once = await asyncio.gather(*(store.platform_secret("race", make) for _ in range(8)))
    assert len(set(at_once)) == 1
    await store.ping()


# ------------------------------------------------------------------ pages


async def test_pages_reach_every_error_once_in_both_orders(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    # Three of each moment: the id decides among them.
    items = [
        sample_error(session, project.id, occurred_at=iso_from_epoch(clock.now() - number // 3))
        for number in range(50)
    ]
    await store.commit_batch(items, [])
    newest = [
        i.record.id for i in sorted(items, key=lambda i: (i.record.occurred_at, i.record.id), reverse=True)
    ]

    async def walk(*, of_session: bool) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            page = (
                await store.session_errors(project.id, session, limit=7, cursor=cursor)
                if of_session
                else await store.project_errors(project.id, limit=7, cursor=cursor)
            )
            found += [row.id for row in page.errors]
            cursor = page.next_cursor
            if cursor is None:
                return found

    assert await walk(of_session=False) == newest
    assert await walk(of_session=True) == newest[::-1]
    full = await store.project_errors(project.id, limit=50, cursor=None)
    assert (len(full.errors), full.next_cursor) == (50, None)


async def test_a_page_goes_on_where_it_was_though_newer_errors_came(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    old = [
        sample_error(session, project.id, occurred_at=iso_from_epoch(clock.now() - n)) for n in (1, 2, 3, 4)
    ]
    await store.commit_batch(old, [])
    first = await store.project_errors(project.id, limit=2, cursor=None)
    await store.commit_batch([sample_error(session, project.id, occurred_at=clock.wire_time())], [])
    second = await store.project_errors(project.id, limit=2, cursor=first.next_cursor)
    assert [row.id for row in [*first.errors, *second.errors]] == [item.record.id for item in old]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "W10",
        "bnVsbA",
        "W10=" * 400,
        "ä",
        "WyJwcm9qZWN0IiwxLDJd",
        "WyJwcm9qZWN0IiwxZTQwLCJhIl0",
    ],
)
async def test_a_cursor_that_is_none_is_refused(store: Store, project: Project, cursor: str) -> None:
    for call in (
        store.project_errors(project.id, limit=20, cursor=cursor),
        store.session_errors(project.id, "s", limit=20, cursor=cursor),
    ):
        with pytest.raises(ValueError, match="pass the next_cursor of its previous page"):
            await call


async def test_a_cursor_fits_its_own_list_only(store: Store, project: Project, session: str) -> None:
    await store.commit_batch([sample_error(session, project.id) for _ in range(3)], [])
    page = await store.project_errors(project.id, limit=1, cursor=None)
    with pytest.raises(ValueError, match="not a cursor of this list"):
        await store.session_errors(project.id, session, limit=1, cursor=page.next_cursor)


@pytest.mark.parametrize("limit", [0, -1, 101])
async def test_a_limit_out_of_range_is_refused(store: Store, project: Project, limit: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 100"):
        await store.project_errors(project.id, limit=limit, cursor=None)


async def test_errors_are_seen_within_their_project_only(
    store: Store, org: str, project: Project, session: str
) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")
    await store.commit_batch([sample_error(session, project.id)], [])
    assert len((await store.session_errors(project.id, session, limit=20, cursor=None)).errors) == 1
    assert list((await store.project_errors(other.id, limit=20, cursor=None)).errors) == []
    assert list((await store.session_errors(other.id, session, limit=20, cursor=None)).errors) == []


# ------------------------------------------------------------------ deletion, concurrency, the end


async def test_a_deleted_project_takes_everything_with_it(
    store: Store, org: str, project: Project, session: str
) -> None:
    build = await make_build(store, project)
    deployment = await store.create_deployment(
        project_id=project.id, build_id=build.id, mode=DeployMode.DRAIN
    )
    await store.put_secret(project.id, "A", "b")
    await store.create_key(
        org_id=org,
        name="web",
        kind=KeyKind.CLIENT,
        project_id=project.id,
        token_hash=HASH,
        prefix="vthc_",
        expires_at=None,
    )
    await store.commit_batch([sample_error(session, project.id)], [])
    assert await store.delete_project(project.id, org_id=org)
    assert not await store.delete_project(project.id, org_id=org)
    assert await store.find_key(HASH) is None
    assert await store.get_session(session) is None
    assert await store.get_deployment(deployment.id, org_id=org) is None
    assert list(await store.list_builds(project.id)) == []
    assert await store.get_secrets(project.id) == {}
    assert list((await store.project_errors(project.id, limit=20, cursor=None)).errors) == []
    late = await store.commit_batch([sample_error(session, project.id)], [])
    assert late == CommittedBatch(inserted=0, duplicates=0, dead=1, ended=0)


async def test_writes_at_the_same_time_do_not_fail_one_another(
    store: Store, org: str, project: Project
) -> None:
    results = await asyncio.gather(
        *(
            store.create_session(
                session_id=f"s{number % 150}",
                project_id=project.id,
                build_id=None,
                customer_context=None,
                idempotency_key=None,
            )
            for number in range(300)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(result, StoreConflict) for result in results) == 150
    assert len(await store.list_sessions(project.id, start=None, end=None, limit=1000)) == 150


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.aclose()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.ensure_default_org()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.get_session("s")
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.ping()


@pytest.mark.parametrize(
    ("bad_url", "problem"),
    [
        ("", "not a database URL"),
        ("x y", "not a database URL"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("mysql://u:p4ssw0rd@h/d", "'mysql' is not a database that is supported: use sqlite:///path"),
        ("postgresql+asyncpg://h/d?password=p4ssw0rd", "use .* or postgresql://user:password@host/database"),
    ],
)
async def test_a_url_of_no_supported_database_is_refused(bad_url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        await Store.open(bad_url)
    assert "p4ssw0rd" not in str(caught.value)


# ------------------------------------------------------------------ what must be the same on every database


async def test_characters_that_a_database_does_not_store_are_replaced(
    store: Store, org: str, project: Project, session: str
) -> None:
    replaced = "a\ufffdb"
    await store.put_secret(project.id, "A", "a\0b")
    assert await store.get_secrets(project.id) == {"A": replaced}
    assert (await store.create_project(org_id=org, name="a\0b", slug="nul")).name == replaced
    bad = sample_error(
        session,
        project.id,
        id="a\0b",
        message="a\0b",
        stack="a\0b",
        client_message="a\0b",
        customer_context={"a\0b": "a\0b"},
        details={"a\0b": "a\0b"},
    )
    items: list[QueueItem] = [
        bad,
        sample_error("a\0b", project.id),
        ended(session, project.id, reason="a\0b"),
    ]
    committed = await store.commit_batch(items, [(b"a\0b", "a\0b")])
    assert committed == CommittedBatch(inserted=1, duplicates=0, dead=2, ended=1)
    assert (await store.commit_batch([bad], [])).duplicates == 1
    (row,) = (await store.project_errors(project.id, limit=20, cursor=None)).errors
    assert (row.id, row.message, row.stack_trace, row.client_message) == (replaced,) * 4
    assert row.customer_context == row.details == {"a\0b": "a\0b"}
    record = await store.get_session(session)
    assert record is not None
    assert record.end_reason == replaced
    letters = await store.dead_letters()
    assert [(letter.data[:3], letter.problem[:24]) for letter in letters] == [
        (b'{"t', "there is no session 'a\\x"),
        (b"a\0b", replaced),
    ]
    assert await store.get_session("a\0b") is None


async def test_ids_are_ordered_by_their_bytes(
    store: Store, org: str, project: Project, session: str, clock: ManualClock
) -> None:
    ids = ["a", "B", "_", "é", "Z", "10", "9", "a-b", "ab", "\U0001f635", "\uffff"]
    at = clock.wire_time()
    await store.commit_batch([sample_error(session, project.id, id=name, occurred_at=at) for name in ids], [])
    found: list[str] = []
    cursor = None
    while True:
        page = await store.session_errors(project.id, session, limit=3, cursor=cursor)
        found += [row.id for row in page.errors]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == sorted(ids, key=str.encode)
    for name in ids[:3]:
        await store.create_project(org_id=org, name=name, slug=f"s{ids.index(name)}")
    names = [found.name for found in await store.list_projects(org)]
    assert names == ["B", "Pizza", "_", "a"]


async def test_the_same_batch_at_once_is_stored_once(store: Store, project: Project, session: str) -> None:
    items: list[QueueItem] = [sample_error(session, project.id) for _ in range(300)]
    items += [ended(session, project.id), suppressed(project.id, "s", at="2026-06-19T12:00:00.000Z")]
    done = await asyncio.gather(
        *(store.commit_batch(items if n % 2 else items[::-1], [(b"x", "poison")]) for n in range(6))
    )
    totals = [sum(values) for values in zip(*(msgspec.structs.astuple(part) for part in done), strict=True)]
    assert totals == [300, 1500, 1, 1, 1]


async def test_a_project_that_is_deleted_meanwhile_takes_its_errors_along(
    store: Store, org: str, project: Project, session: str
) -> None:
    batches = [[sample_error(session, project.id) for _ in range(20)] for _ in range(8)]
    results = await asyncio.gather(
        *(store.commit_batch(batch, []) for batch in batches[:4]),
        store.delete_project(project.id, org_id=org),
        *(store.commit_batch(batch, []) for batch in batches[4:]),
    )
    assert results.pop(4) is True
    assert sum(part.inserted + part.dead for part in results) == 160
    assert list((await store.project_errors(project.id, limit=20, cursor=None)).errors) == []
