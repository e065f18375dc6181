"""Routes: builds. Upload, validate, promote, roll back.

A bundle that is structurally bad (no zip, no `agent.py`, too large) is refused and not kept. One that is
well formed but does not load in the sandbox is kept as `invalid` with the reason, and never runs.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from litestar import Controller, get, post
from litestar.datastructures import UploadFile
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import JSONBody, MultipartBody
from msgspec import UNSET

from voicethere.adapters.http.auth import Connection
from voicethere.adapters.http.errors import HttpProblem, conflict, error_responses, invalid, not_found
from voicethere.core.bundle import InvalidBundle, read_bundle
from voicethere.core.ports import BundleReport
from voicethere.roles.control.access import require_id, require_printable
from voicethere.roles.control.plane import ControlPlane
from voicethere.roles.control.rollback import build_before
from voicethere.wire.control_plane import (
    ActiveBuild,
    Build,
    BuildList,
    Project,
    PromoteBuild,
    ValidationStatus,
)
from voicethere.wire.http import HttpErrorCode

UPLOAD_LIMIT_BYTES = 12 * 1024 * 1024
MAX_MESSAGE_CHARS = 500
_MAX_REASON_CHARS = 8000


@dataclass
class BuildUpload:
    """The form: `bundle` is a file (`.py`, or `.zip` with `agent.py`)."""

    bundle: UploadFile
    message: str | None = None


def multipart_only(connection: Connection, _: BaseRouteHandler) -> None:
    """A guard: says what was expected before a body of another kind is taken for an empty form."""
    content_type = connection.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/form-data"):
        raise HttpProblem(
            415,
            HttpErrorCode.UNSUPPORTED_MEDIA_TYPE,
            "Upload the bundle as multipart/form-data with a file field `bundle`.",
        )


class BuildRoutes(Controller):
    path = "/projects/{project_id:str}"
    tags = ("builds",)

    @get("/builds", summary="List the project's builds, newest first")
    async def list_builds(
        self, project: NamedDependency[Project], plane: NamedDependency[ControlPlane]
    ) -> BuildList:
        return BuildList(builds=list(await plane.store.list_builds(project.id)))

    @post(
        "/builds",
        summary="Upload a bundle",
        dto=None,
        guards=[multipart_only],
        request_max_body_size=UPLOAD_LIMIT_BYTES,
        responses=error_responses(413, 415),
    )
    async def upload_build(
        self,
        data: MultipartBody[BuildUpload],
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
    ) -> Build:
        """The bundle is loaded in the real sandbox before this answers; `validation_status` says how that
        went, `validation_error` why it failed. It does not become active by itself: promote it."""
        message = _message(data.message)
        content = await data.bundle.read()
        filename = data.bundle.filename
        try:
            # Reading an archive of megabytes takes long enough to be felt by other requests.
            await asyncio.to_thread(read_bundle, content, filename=filename)
        except InvalidBundle as error:
            raise HttpProblem(422, HttpErrorCode.INVALID_BUNDLE, str(error)) from error
        report = await plane.verify(content)
        checksum = hashlib.sha256(content).hexdigest()
        await plane.bundles.put(checksum, content)
        status = ValidationStatus.VALID if report.problem is None else ValidationStatus.INVALID
        return await plane.store.create_build(
            project_id=project.id,
            size_bytes=len(content),
            checksum_sha256=checksum,
            message=message,
            validation_status=status,
            validation_error=_reason(report),
        )

    @post("/promote", summary="Make a build the active one", status_code=200, responses=error_responses(409))
    async def promote(
        self,
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
        data: JSONBody[PromoteBuild | None] = None,
    ) -> ActiveBuild:
        """Without a `build_id`: the newest valid build. Sessions see it after the next deploy."""
        build_id = UNSET if data is None else data.build_id
        if build_id is UNSET:
            build = await _newest_valid(plane, project)
        else:
            build = await usable_build(plane, project, build_id)
        await plane.store.set_active_build(project.id, build.id)
        return ActiveBuild(project_id=project.id, active_build_id=build.id)

    @post(
        "/rollback",
        summary="Make an earlier build the active one",
        status_code=200,
        responses=error_responses(409),
    )
    async def rollback(
        self,
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
        data: JSONBody[PromoteBuild | None] = None,
    ) -> ActiveBuild:
        """Without a `build_id`: the build that was in service before the active one; where no other was ever
        deployed, the newest valid build that is older. Sessions see it after the next deploy."""
        build_id = UNSET if data is None else data.build_id
        if build_id is UNSET:
            build = await _valid_before_active(plane, project)
        else:
            build = await usable_build(plane, project, build_id)
        await plane.store.set_active_build(project.id, build.id)
        return ActiveBuild(project_id=project.id, active_build_id=build.id)


async def usable_build(plane: ControlPlane, project: Project, build_id: str) -> Build:
    """A build of the project that may run.

    Raises:
        HttpProblem: 404 for an unknown one, 422 for one that does not load, with the reason.
    """
    build = await plane.store.get_build(project.id, require_id(build_id, "build"))
    if build is None:
        raise not_found("build")
    if build.validation_status is not ValidationStatus.VALID:
        reason = build.validation_error or f"it is {build.validation_status.value}"
        raise HttpProblem(
            422, HttpErrorCode.INVALID_BUNDLE, f"Build {build.id} does not load in the sandbox: {reason}"
        )
    return build


async def _newest_valid(plane: ControlPlane, project: Project) -> Build:
    for build in await plane.store.list_builds(project.id):
        if build.validation_status is ValidationStatus.VALID:
            return build
    raise conflict("The project has no valid build: upload one first.")


async def _valid_before_active(plane: ControlPlane, project: Project) -> Build:
    if project.active_build_id is None:
        raise conflict("The project has no active build to roll back from: promote one first.")
    build = build_before(
        project.active_build_id,
        served=await plane.store.served_builds(project.id),
        builds=await plane.store.list_builds(project.id),
    )
    if build is None:
        raise conflict("No other valid build was in service before the active one: name a `build_id`.")
    return build


def _message(given: str | None) -> str | None:
    if given is None or not given.strip():
        return None
    if len(given) > MAX_MESSAGE_CHARS:
        raise invalid(f"`message`: at most {MAX_MESSAGE_CHARS} characters, these are {len(given)}.")
    return require_printable("message", given, lines=True)


def _reason(report: BundleReport) -> str | None:
    if report.problem is None:
        return None
    reason = report.problem if not report.stack else f"{report.problem}\n{report.stack}"
    # The end of a stack names the agent's own line: that end is kept.
    return reason if len(reason) <= _MAX_REASON_CHARS else f"{report.problem[:2000]}\n…{reason[-5000:]}"
