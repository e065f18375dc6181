"""The session API over HTTP: start a session, poll its provisioning (contract: session-api.md).

Knows routes, statuses and headers; what they mean is the service's.
"""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody
from msgspec import UNSET

from voicethere.adapters.http.auth import BearerAuth, Principal
from voicethere.adapters.http.cors import CorsPolicy
from voicethere.adapters.http.errors import HttpProblem, error_responses, forbidden, invalid, not_found
from voicethere.core.usage import UsageExceeded
from voicethere.errors import context_problem
from voicethere.roles.sessions.addresses import signaling_url
from voicethere.roles.sessions.service import (
    BuildUnusable,
    CapacityExceeded,
    SessionService,
)
from voicethere.wire.http import HttpErrorCode
from voicethere.wire.session_api import (
    Credentials,
    ProvisioningStatus,
    SessionQueued,
    SessionState,
    StartSession,
)

MAX_IDEMPOTENCY_KEY_CHARS = 255

SESSIONS_CORS = CorsPolicy(path_prefixes=("/v1/",), methods=("GET", "POST"))
"""For the app that serves these routes: pages of any origin may use them."""

_IDEMPOTENCY_KEY = "idempotency-key"


def sessions_router(service: SessionService, auth: BearerAuth) -> Router:
    """The routes below `/v1/sessions`."""

    @post(
        "/",
        operation_id="startSession",
        summary="Start a session",
        status_code=202,
        responses={
            200: ResponseSpec(
                Credentials,
                description="`async` was false, and the session is ready.",
                generate_examples=False,
            ),
            **error_responses(429),
        },
    )
    async def start_session(
        request: Request[Any, Any, Any], data: JSONBody[StartSession], principal: NamedDependency[Principal]
    ) -> Response[SessionQueued | Credentials]:
        """Starts to provision a session of a project, and answers at once with its id: poll that.

        With `async` false the answer waits for the credentials, and falls back to 202 past the server's
        limit. With an `Idempotency-Key` header a repeated request returns the same session.
        """
        await _check_project(service, principal, data.project_id)
        await _check_origin(service, request, data.project_id)
        context = None if data.customer_context is UNSET else data.customer_context
        if context is not None and (problem := context_problem(context)) is not None:
            raise invalid(problem)
        try:
            record = await service.start_session(
                project_id=data.project_id,
                build_id=None if data.build_id is UNSET else data.build_id,
                wait_for_capacity=data.wait_for_capacity,
                customer_context=context,
                idempotency_key=_idempotency_key(request),
            )
        except CapacityExceeded as full:
            raise HttpProblem(
                429,
                HttpErrorCode.CAPACITY_EXCEEDED,
                "Every runner is full: try again later, or wait in the line (`wait_for_capacity` true).",
                headers={"Retry-After": str(full.retry_after_seconds)},
            ) from full
        except UsageExceeded as used_up:
            raise HttpProblem(
                429,
                HttpErrorCode.MONTHLY_USAGE_EXCEEDED,
                f"This project may start {used_up.limit} sessions a month, and has: raise its "
                "`monthly_session_limit`, or wait for the next month.",
                headers={"Retry-After": str(used_up.retry_after_seconds)},
            ) from used_up
        except BuildUnusable as problem:
            raise invalid(str(problem)) from problem
        except LookupError as problem:
            raise not_found("project") from problem  # it was deleted a moment ago
        if not data.run_async:
            settled = await service.settled(record.id, seconds=service.settings.sync_start_seconds)
            if settled is not None and settled.status is ProvisioningStatus.READY:
                credentials = await service.credentials_of_start(
                    settled, signaling_url=_signaling_url(service, request)
                )
                return Response(credentials, status_code=200)
        return Response(
            SessionQueued(session_id=record.id),
            status_code=202,
            headers={"Location": f"/v1/sessions/{record.id}"},
        )

    @get("/{session_id:str}", operation_id="pollSession", summary="Poll a session")
    async def get_session(
        request: Request[Any, Any, Any], session_id: FromPath[str], principal: NamedDependency[Principal]
    ) -> SessionState:
        """Where the session stands. While it waits for capacity, each poll keeps its place in the line.

        While it is being provisioned the answer may take a moment: most sessions are ready by then.
        """
        record = await service.find_session(session_id)
        if record is None or not await service.knows_project(record.project_id, principal.org_id):
            raise not_found("session")
        if not principal.may_see(record.project_id):
            raise not_found("session")
        await _check_origin(service, request, record.project_id)
        record = await service.worth_telling(record)
        return await service.state(record, signaling_url=_signaling_url(service, request))

    return Router(
        "/v1/sessions",
        route_handlers=[start_session, get_session],
        guards=[auth.guard],
        dependencies={"principal": Provide(auth.principal)},
        tags=["sessions"],
    )


async def _check_project(service: SessionService, principal: Principal, project_id: str) -> None:
    """Raises a 404 that is the same for a project that is not there and one that the key may not see."""
    if principal.kind == "service":
        raise forbidden("Service credentials cannot start sessions; use an org, user or client key.")
    if not principal.may_see(project_id) or not await service.knows_project(project_id, principal.org_id):
        raise not_found("project")


async def _check_origin(service: SessionService, request: Request[Any, Any, Any], project_id: str) -> None:
    """Raises a 403 for a page of an origin that the project has not named; only pages have one."""
    origin = request.headers.get("origin")
    if origin is None:
        return
    allowed = await service.allowed_origins(project_id)
    if allowed and origin.lower() not in allowed:
        raise forbidden("Pages of this origin may not use this project: add it to its `allowed_origins`.")


def _idempotency_key(request: Request[Any, Any, Any]) -> str | None:
    key = request.headers.get(_IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not 0 < len(key) <= MAX_IDEMPOTENCY_KEY_CHARS or not key.isprintable():
        raise invalid(
            f"The Idempotency-Key header must have 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable characters."
        )
    return key


def _signaling_url(service: SessionService, request: Request[Any, Any, Any]) -> str:
    host, port = request.scope.get("server") or ("localhost", None)
    return signaling_url(
        service.settings,
        scheme=str(request.scope["scheme"]),
        headers=request.headers,
        server=host if port is None else f"{host}:{port}",
    )
