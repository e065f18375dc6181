"""What the store promises to the roles, on every database that it supports."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from voicethere.adapters.store import CommittedBatch, Store, StoreConflict, StoreUnavailable
from voicethere.errors.times import iso_from_epoch
from voicethere.testing.clock import ManualClock
from voicethere.testing.queue import sample_error
from voicethere.wire.control_plane import (
    Build,
    DeploymentStatus,
    DeployMode,
    KeyKind,
    Project,
    ValidationStatus,
)
from voicethere.wire.queue import ErrorItem, SessionEndedItem
from voicethere.wire.relay import DeployedAgent
from voicethere.wire.session_api import FailureCode, Mode, ProvisioningStatus
from voicethere.wire.settings import ProjectSettings, SessionSettings

HASH = "ab" * 32


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    store = await Store.open(f"sqlite:///{tmp_path}/voicethere.db", clock=clock)
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
    failed = await store.update_session(
        session,
        status=ProvisioningStatus.FAILED,
        failure_code=FailureCode.TIMEOUT,
        failure_message="too slow",
    )
    assert failed is not None
    assert (failed.failure_code, failed.failure_message) == (FailureCode.TIMEOUT, "too slow")
    assert failed.failed
    assert await store.update_session(session, status=ProvisioningStatus.READY) == failed
    assert await store.update_session("nope", status=ProvisioningStatus.READY) is None
    row = await store.get_session_row(project.id, session)
    assert row is not None
    assert (row.status, row.ended_at) == ("failed", clock.wire_time())
    assert await store.get_session_row("another", session) is None


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
    assert letter.problem.startswith("the database refuses this error")


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


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///:memory:", "postgresql://u:p4ssw0rd@h/d", "x y"])
async def test_a_url_of_no_supported_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///path/to/voicethere\.db") as caught:
        await Store.open(url)
    assert "p4ssw0rd" not in str(caught.value)
