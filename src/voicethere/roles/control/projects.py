"""Routes: projects."""

from __future__ import annotations

import re
import secrets
import unicodedata

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody
from msgspec import UNSET

from voicethere.adapters.http.auth import Principal
from voicethere.adapters.http.errors import conflict, error_responses, invalid
from voicethere.adapters.store.store import StoreConflict
from voicethere.roles.control.access import org_of, require_org_wide, require_printable
from voicethere.roles.control.plane import ControlPlane
from voicethere.wire.control_plane import CreateProject, DeleteProject, Project, ProjectList

_SLUG_CHARS = 40
_NUMBERED_SLUGS = 20


class ProjectRoutes(Controller):
    path = "/projects"
    tags = ("projects",)

    @get(summary="List the projects that this key may see")
    async def list_projects(
        self, plane: NamedDependency[ControlPlane], principal: NamedDependency[Principal]
    ) -> ProjectList:
        projects = await plane.store.list_projects(org_of(principal))
        return ProjectList(projects=[project for project in projects if principal.may_see(project.id)])

    @post(summary="Create a project", responses=error_responses(409))
    async def create_project(
        self,
        data: JSONBody[CreateProject],
        plane: NamedDependency[ControlPlane],
        principal: NamedDependency[Principal],
    ) -> Project:
        """Without a `slug`, one is made from the name and kept unique."""
        org_id = require_org_wide(principal)
        name = require_printable("name", data.name).strip()
        if not name:
            raise invalid("`name`: must hold more than spaces.")
        if data.slug is not UNSET:
            try:
                return await plane.store.create_project(org_id=org_id, name=name, slug=data.slug)
            except StoreConflict as error:
                raise conflict(f"The slug '{data.slug}' is taken: choose another.") from error
        return await _create_with_derived_slug(plane, org_id, name)

    @get("/{project_id:str}", summary="Show a project")
    async def get_project(self, project: NamedDependency[Project]) -> Project:
        return project

    @delete("/{project_id:str}", summary="Delete a project", responses=error_responses(409))
    async def delete_project(
        self,
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
        force: FromQuery[bool] = False,
        data: JSONBody[DeleteProject | None] = None,
    ) -> None:
        """With everything in it: builds, deployments, sessions, errors and its keys. A deployed project is
        only deleted with `force=true`; a `confirm_name` that is given must be the project's name."""
        if data is not None and data.confirm_name is not UNSET and data.confirm_name != project.name:
            raise invalid("`confirm_name`: is not the name of this project.")
        if project.is_deployed and not force:
            raise conflict("The project is deployed: undeploy it first, or delete it with force=true.")
        await plane.store.delete_project(project.id, org_id=project.org_id)


def slug_of(name: str) -> str:
    """The slug that a name suggests: "Café Étoile 2" → "cafe-etoile-2"; "project" where nothing is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    return slug[:_SLUG_CHARS].rstrip("-") or "project"


async def _create_with_derived_slug(plane: ControlPlane, org_id: str, name: str) -> Project:
    base = slug_of(name)
    numbered = (base, *(f"{base}-{n}" for n in range(2, _NUMBERED_SLUGS)))
    for slug in (*numbered, f"{base}-{secrets.token_hex(4)}"):
        try:
            return await plane.store.create_project(org_id=org_id, name=name, slug=slug)
        except StoreConflict:
            continue
    raise conflict(f"Too many projects are called '{base}': give a `slug`.")
