"""Builds and deployments: functions on a connection."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, Row, delete, select, update

from voicethere.adapters.store import columns
from voicethere.adapters.store.projects import require_project
from voicethere.adapters.store.tables import ACTIVE, WARM, builds, deployed_agents, deployments, projects
from voicethere.wire.control_plane import (
    Build,
    Deployment,
    DeploymentStatus,
    DeployMode,
    ValidationStatus,
)
from voicethere.wire.relay import DeployedAgent

_EFFECTIVE = (DeploymentStatus.ACTIVE, DeploymentStatus.COMPLETED)
_FINAL = (DeploymentStatus.COMPLETED.value, DeploymentStatus.FAILED.value)
_agent_decoder = msgspec.json.Decoder(DeployedAgent)


def create_build(
    connection: Connection,
    now_ms: int,
    *,
    project_id: str,
    size_bytes: int,
    checksum_sha256: str,
    message: str | None,
    validation_status: ValidationStatus,
    validation_error: str | None,
) -> Build:
    """Raises LookupError where there is no such project."""
    require_project(connection, project_id)
    build_id = str(uuid.uuid4())
    connection.execute(
        builds.insert().values(
            id=build_id,
            project_id=project_id,
            size_bytes=size_bytes,
            checksum_sha256=checksum_sha256,
            validation_status=validation_status.value,
            validation_error=validation_error,
            message=message,
            created_at_ms=now_ms,
        )
    )
    build = get_build(connection, project_id, build_id)
    assert build is not None
    return build


def list_builds(connection: Connection, project_id: str) -> Sequence[Build]:
    """Newest first."""
    query = select(builds).where(builds.c.project_id == project_id).order_by(builds.c.number.desc())
    return [_build(row) for row in connection.execute(query)]


def get_build(connection: Connection, project_id: str, build_id: str) -> Build | None:
    """The build, where it is the project's."""
    query = select(builds).where(builds.c.id == build_id, builds.c.project_id == project_id)
    row = connection.execute(query).first()
    return None if row is None else _build(row)


def set_active_build(connection: Connection, project_id: str, build_id: str) -> None:
    """Raises LookupError where the project has no such build."""
    if get_build(connection, project_id, build_id) is None:
        raise LookupError(f"the project {project_id!r} has no build {build_id!r}")
    connection.execute(update(projects).where(projects.c.id == project_id).values(active_build_id=build_id))


def create_deployment(
    connection: Connection, now_ms: int, *, project_id: str, build_id: str | None, mode: DeployMode
) -> Deployment:
    """A queued deployment; LookupError where there is no such project."""
    require_project(connection, project_id)
    deployment_id = str(uuid.uuid4())
    connection.execute(
        deployments.insert().values(
            id=deployment_id,
            project_id=project_id,
            build_id=build_id,
            status=DeploymentStatus.QUEUED.value,
            mode=mode.value,
            created_at_ms=now_ms,
        )
    )
    return _deployment(_deployment_row(connection, deployment_id))


def finish_deployment(
    connection: Connection,
    now_ms: int,
    deployment_id: str,
    *,
    status: DeploymentStatus,
    error: str | None,
    agent: DeployedAgent | None,
) -> Deployment:
    """Take a step; one that is completed or failed already stays as it is.

    The first step with an agent, active or completed, makes it the deployed one; no later step does so again
    (another deployment, or an undeploy, may have followed).

    Raises:
        LookupError: there is no such deployment.
        ValueError: completed without what was deployed, or with another project's.
    """
    row = _deployment_row(connection, deployment_id, to_change=True)
    if row.status in _FINAL:
        return _deployment(row)
    values: dict[str, object] = {"status": status.value, "error": error}
    if status.value in _FINAL:
        values["completed_at_ms"] = now_ms
    if status is DeploymentStatus.COMPLETED and agent is None and row.effective_at_ms is None:
        raise ValueError("a completed deployment needs the agent that it deployed, of its own project")
    if agent is not None and status in _EFFECTIVE:
        if agent.project_id != row.project_id:
            raise ValueError("a deployment deploys an agent of its own project")
        if row.effective_at_ms is None:
            values |= {"build_id": agent.build_id, "effective_at_ms": now_ms}
            _deploy(connection, now_ms, deployment_id, agent)
    connection.execute(update(deployments).where(deployments.c.id == deployment_id).values(values))
    return _deployment(_deployment_row(connection, deployment_id))


def _deploy(connection: Connection, now_ms: int, deployment_id: str, agent: DeployedAgent) -> None:
    deployed = {
        "deployment_id": deployment_id,
        "build_id": agent.build_id,
        "agent": columns.to_json(agent),
        "deployed_at_ms": now_ms,
        "warm": agent.warm_pool_enabled,
    }
    connection.execute(
        columns.insert(connection, deployed_agents)
        .values(project_id=agent.project_id, **deployed)
        .on_conflict_do_update(index_elements=["project_id"], set_=deployed)
    )


def active_deployments(connection: Connection) -> Sequence[Deployment]:
    """Those that are on their way, oldest first."""
    query = select(deployments).where(ACTIVE).order_by(deployments.c.number)
    return [_deployment(row) for row in connection.execute(query)]


def get_deployment(connection: Connection, deployment_id: str, *, org_id: str) -> Deployment | None:
    """The deployment, where it is of one of the org's projects."""
    query = (
        select(deployments)
        .join(projects, projects.c.id == deployments.c.project_id)
        .where(deployments.c.id == deployment_id, projects.c.org_id == org_id)
    )
    row = connection.execute(query).first()
    return None if row is None else _deployment(row)


def undeploy(connection: Connection, project_id: str) -> bool:
    """Whether something was deployed."""
    gone = connection.execute(delete(deployed_agents).where(deployed_agents.c.project_id == project_id))
    return gone.rowcount > 0


def undeploy_as_job(connection: Connection, now_ms: int, project_id: str) -> Deployment | None:
    """Like `undeploy`, kept as a completed deployment of no build; None where nothing was deployed."""
    if not undeploy(connection, project_id):
        return None
    deployment_id = str(uuid.uuid4())
    connection.execute(
        deployments.insert().values(
            id=deployment_id,
            project_id=project_id,
            build_id=None,
            status=DeploymentStatus.COMPLETED.value,
            mode=DeployMode.DRAIN.value,
            created_at_ms=now_ms,
            completed_at_ms=now_ms,
        )
    )
    return _deployment(_deployment_row(connection, deployment_id))


def deployed_agent(connection: Connection, project_id: str) -> DeployedAgent | None:
    """What new sessions of the project run."""
    query = select(deployed_agents.c.agent).where(deployed_agents.c.project_id == project_id)
    text = connection.execute(query).scalar_one_or_none()
    return None if text is None else _agent_decoder.decode(text)


def served_builds(connection: Connection, project_id: str, limit: int) -> list[str]:
    """The builds of the project's deployments that took effect, newest deployment first."""
    query = (
        select(deployments.c.build_id)
        .where(
            deployments.c.project_id == project_id,
            deployments.c.build_id.is_not(None),
            # Those of earlier versions have no time of it; they took effect when they were completed.
            deployments.c.effective_at_ms.is_not(None)
            | (deployments.c.status == DeploymentStatus.COMPLETED.value),
        )
        .order_by(deployments.c.number.desc())
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def warm_agents(connection: Connection, limit: int) -> list[DeployedAgent]:
    """What is deployed and wants a warm child, newest deploy first."""
    query = (
        select(deployed_agents.c.agent)
        .where(WARM)
        .order_by(deployed_agents.c.deployed_at_ms.desc(), deployed_agents.c.project_id)
        .limit(limit)
    )
    return [_agent_decoder.decode(text) for text in connection.execute(query).scalars()]


def _deployment_row(
    connection: Connection, deployment_id: str, *, to_change: bool = False
) -> Row[tuple[object, ...]]:
    query = select(deployments).where(deployments.c.id == deployment_id)
    row = connection.execute(query.with_for_update() if to_change else query).first()
    if row is None:
        raise LookupError(f"there is no deployment {deployment_id!r}")
    return row


def _build(row: Row[tuple[object, ...]]) -> Build:
    return Build(
        id=row.id,
        project_id=row.project_id,
        size_bytes=row.size_bytes,
        checksum_sha256=row.checksum_sha256,
        validation_status=ValidationStatus(row.validation_status),
        validation_error=row.validation_error,
        message=row.message,
        created_at=columns.to_wire(row.created_at_ms),
    )


def _deployment(row: Row[tuple[object, ...]]) -> Deployment:
    return Deployment(
        id=row.id,
        project_id=row.project_id,
        build_id=row.build_id,
        status=DeploymentStatus(row.status),
        mode=DeployMode(row.mode),
        error=row.error,
        created_at=columns.to_wire(row.created_at_ms),
        completed_at=columns.to_wire_or_none(row.completed_at_ms),
    )
