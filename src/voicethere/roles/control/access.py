"""Who may do what: which kind of key a route takes, and which projects a key sees.

A project that a key may not see is a 404, in the same words as one that does not exist.
"""

from __future__ import annotations

import re
import unicodedata

from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath

from voicethere.adapters.http.auth import Connection, Principal, principal_of
from voicethere.adapters.http.errors import forbidden, invalid, not_found
from voicethere.roles.control.plane import ControlPlane
from voicethere.wire.control_plane import Project

FOR_SERVICES = {"principal": "service"}
"""A route's `opt` that reserves it for other parts of the platform."""

FOR_OPERATORS = {"principal": "operator"}
"""A route's `opt` of what belongs to no project: services may use it too (see `require_operator`)."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def key_fits_route(connection: Connection, handler: BaseRouteHandler) -> None:
    """A guard: client keys have no business here, service credentials only where a route says so."""
    kind, meant_for = principal_of(connection).kind, handler.opt.get("principal")
    if meant_for == "service":
        if kind != "service":
            raise forbidden("Only the platform's own services may do this.")
    elif kind == "client":
        raise forbidden("A client key may only start and poll sessions. Use an org key (vth_…) here.")
    elif kind == "service" and meant_for != "operator":
        raise forbidden("Service credentials may only report session errors.")


def org_of(principal: Principal) -> str:
    """The org that a key speaks for.

    Raises:
        HttpProblem: 403, it speaks for none.
    """
    if principal.org_id is None:
        raise forbidden("This key belongs to no organization.")
    return principal.org_id


def require_org_wide(principal: Principal) -> str:
    """The org of a key that is not bound to one project.

    Raises:
        HttpProblem: 403.
    """
    if principal.project_id is not None:
        raise forbidden("This key is bound to one project; use an org-wide key for this.")
    return org_of(principal)


async def require_operator(plane: ControlPlane, principal: Principal) -> None:
    """Whoever may see what belongs to no project: the platform's services, and the org that was there first.

    Raises:
        HttpProblem: 403.
    """
    if principal.kind != "service" and require_org_wide(principal) != await plane.store.ensure_default_org():
        raise forbidden("Only the organization that runs this platform may do this.")


async def find_project(plane: ControlPlane, principal: Principal, project_id: str) -> Project:
    """The project, where this key may see it.

    Raises:
        HttpProblem: 404.
    """
    if _UUID.fullmatch(project_id) and principal.may_see(project_id):
        project = await plane.store.get_project(project_id, org_id=org_of(principal))
        if project is not None:
            return project
    raise not_found("project")


async def visible_project(
    project_id: FromPath[str], plane: NamedDependency[ControlPlane], principal: NamedDependency[Principal]
) -> Project:
    """The dependency `project` of every route below `/projects/{project_id}`."""
    return await find_project(plane, principal, project_id)


def require_id(value: str, what: str) -> str:
    """An id that we mint as a UUID; anything else is of nothing that exists.

    Raises:
        HttpProblem: 404.
    """
    if not _UUID.fullmatch(value):
        raise not_found(what)
    return value


def require_session_id(value: str) -> str:
    """Raises HttpProblem (404) for what no session can have as its id."""
    if not _SESSION_ID.fullmatch(value):
        raise not_found("session")
    return value


def require_printable(field: str, value: str, *, lines: bool = False) -> str:
    """Text without control characters, `lines` allowing line breaks and tabs; it ends up on terminals.

    Raises:
        HttpProblem: 422.
    """
    allowed = "\n\t" if lines else ""
    for character in value:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in allowed:
            raise invalid(f"`{field}`: the control character U+{ord(character):04X} is not allowed.")
    return value
