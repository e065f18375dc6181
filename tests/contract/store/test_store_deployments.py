"""Builds, deployments and what is deployed, on every database that the store supports."""

from __future__ import annotations

import msgspec
import pytest

from tests.contract.store.rows import HASH, make_build
from voicethere.adapters.store import Store
from voicethere.testing.clock import ManualClock
from voicethere.wire.control_plane import DeploymentStatus, DeployMode, Project
from voicethere.wire.relay import DeployedAgent
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import SessionSettings


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
