"""Routes: deployments. A deploy freezes the build, settings, environment and secrets of new sessions."""

from __future__ import annotations

import structlog
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET

from voicethere.adapters.bundles import BundleDamaged
from voicethere.adapters.http.auth import Principal
from voicethere.adapters.http.errors import HttpProblem, conflict, error_responses, not_found
from voicethere.core.ports import BundlesUnavailable
from voicethere.roles.control.access import find_project, org_of, require_id
from voicethere.roles.control.builds import usable_build
from voicethere.roles.control.plane import ControlPlane
from voicethere.wire.control_plane import (
    Build,
    CreateDeployment,
    Deployment,
    DeploymentStatus,
    DeployMode,
    Project,
)
from voicethere.wire.http import HttpErrorCode
from voicethere.wire.ipc import ENV_CRASH_TTS_MESSAGE
from voicethere.wire.relay import DeployedAgent

_log = structlog.get_logger("voicethere.control")


class DeploymentRoutes(Controller):
    tags = ("deployments",)

    @post("/deployments", summary="Deploy a build", responses=error_responses(409))
    async def deploy(
        self,
        data: JSONBody[CreateDeployment],
        plane: NamedDependency[ControlPlane],
        principal: NamedDependency[Principal],
    ) -> Deployment:
        """Without a `build_id`: the active build. New sessions run with what is deployed from now on.

        Sessions that run already go on to their own end in the mode `drain`, and the job is completed at
        once; in the mode `force` they are ended in order, and the job is `active` until none is left."""
        project = await find_project(plane, principal, data.project_id)
        if data.build_id is not UNSET:
            build = await usable_build(plane, project, data.build_id)
        elif project.active_build_id is not None:
            build = await usable_build(plane, project, project.active_build_id)
        else:
            raise conflict("The project has no active build: promote one first, or name a `build_id`.")
        job = await plane.store.create_deployment(project_id=project.id, build_id=build.id, mode=data.mode)
        return await _carry_out(plane, project, build, job)

    @get("/deployments/{deployment_id:str}", summary="Show a deployment")
    async def get_deployment(
        self,
        deployment_id: FromPath[str],
        plane: NamedDependency[ControlPlane],
        principal: NamedDependency[Principal],
    ) -> Deployment:
        job = await plane.store.get_deployment(
            require_id(deployment_id, "deployment"), org_id=org_of(principal)
        )
        if job is None or not principal.may_see(job.project_id):
            raise not_found("deployment")
        return job

    @post(
        "/projects/{project_id:str}/undeploy",
        summary="Take a project out of service",
        status_code=200,
        responses=error_responses(409),
    )
    async def undeploy(
        self, project: NamedDependency[Project], plane: NamedDependency[ControlPlane]
    ) -> Deployment:
        """New sessions are refused (NOT_DEPLOYED); running ones go on to their end."""
        job = await plane.store.undeploy_as_job(project.id)
        if job is None:
            raise HttpProblem(409, HttpErrorCode.NOT_DEPLOYED, "The project is not deployed.")
        return job


async def _carry_out(plane: ControlPlane, project: Project, build: Build, job: Deployment) -> Deployment:
    """The job does not stay queued: whatever fails, it ends as failed and says so."""
    try:
        await plane.bundles.get(build.checksum_sha256)
        agent = await _freeze(plane, project, build)
        # Whoever coordinates the sessions completes a forced one, once no older session is left.
        forced = job.mode is DeployMode.FORCE
        status = DeploymentStatus.ACTIVE if forced else DeploymentStatus.COMPLETED
        return await plane.store.finish_deployment(job.id, status=status, error=None, agent=agent)
    except (KeyError, BundleDamaged) as error:
        _log.error("bundle_lost", build_id=build.id, checksum=build.checksum_sha256, problem=str(error))
        return await plane.store.finish_deployment(
            job.id,
            status=DeploymentStatus.FAILED,
            error="The stored bundle of this build is gone or damaged: upload it again.",
            agent=None,
        )
    except BundlesUnavailable:
        await plane.store.finish_deployment(
            job.id,
            status=DeploymentStatus.FAILED,
            error="The store of bundles is away for the moment: deploy again.",
            agent=None,
        )
        raise
    except Exception:
        await plane.store.finish_deployment(
            job.id,
            status=DeploymentStatus.FAILED,
            error="The deploy failed; the server's log has the details.",
            agent=None,
        )
        raise


async def _freeze(plane: ControlPlane, project: Project, build: Build) -> DeployedAgent:
    session_settings = await plane.store.get_session_settings(project.id)
    project_settings = await plane.store.get_project_settings(project.id)
    environment = await plane.store.get_environment(project.id)
    return DeployedAgent(
        project_id=project.id,
        build_id=build.id,
        bundle_checksum=build.checksum_sha256,
        mode=project_settings.mode,
        settings=session_settings,
        environment={**environment, ENV_CRASH_TTS_MESSAGE: session_settings.error_message},
        secrets=await plane.store.get_secrets(project.id),
        client_speak_enabled=project_settings.client_speak_enabled,
        agent_crash_policy=project_settings.agent_crash_policy,
        shared_child_per_session=project_settings.shared_child_per_session,
        warm_pool_enabled=project_settings.warm_pool_enabled,
    )
