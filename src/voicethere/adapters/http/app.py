"""Builds the ASGI app of an HTTP role: routes, error bodies, request ids, CORS, body limits, docs.

Knows how the parts of this package fit around a set of routers; the routers come from a role.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog
from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ControllerRouterHandler, Message, Scope

from voicethere.adapters.http.bodies import AnswerOversizedBodies, StrictJson
from voicethere.adapters.http.cors import Cors, CorsPolicy
from voicethere.adapters.http.docs_page import DocsPage, docs_router, openapi_document
from voicethere.adapters.http.errors import error_responses, exception_handlers
from voicethere.adapters.http.plain_errors import PlainErrors
from voicethere.adapters.http.request_ids import RequestIds, SeenRequest
from voicethere.core.tracing import NO_TRACER, Tracer

JSON_BODY_LIMIT = 64 * 1024
"""Bytes of a request body where a route says nothing else (`request_max_body_size`)."""

_EVERY_ROUTE = (400, 401, 403, 404, 422, 500, 503)
_WITH_A_BODY = (413, 415)


def build_app(
    routers: Sequence[ControllerRouterHandler],
    *,
    title: str,
    version: str,
    description: str = "",
    cors: CorsPolicy | None = None,
    unavailable: tuple[type[Exception], ...] = (),
    body_limit: int = JSON_BODY_LIMIT,
    lifespan: Sequence[Callable[[Litestar], AbstractAsyncContextManager[Any]]] = (),
    observe: Callable[[SeenRequest], None] | None = None,
    tracer: Tracer = NO_TRACER,
    plain_errors_under: Sequence[str] = (),
) -> Litestar:
    """The app, with `/docs` and `/openapi.json` beside the given routes.

    `unavailable` are exceptions that mean a 503 (`StoreUnavailable`, `QueueUnavailable`); `body_limit` is
    in bytes. JSON bodies are decoded strictly as the type of a handler's `data`; a handler that takes
    multipart sets `dto=None`. `observe` hears of every request, `tracer` makes a span of each. Errors below
    `plain_errors_under` (prefixes of paths) have their message alone as the body.
    """
    config = OpenAPIConfig(
        title=title,
        version=version,
        description=description or None,
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer", description="A `vth…` key.")
            }
        ),
        security=[{"bearer": []}],
        render_plugins=[DocsPage()],
        openapi_router=docs_router(),
        use_handler_docstrings=True,
        operation_id_creator=_operation_id,
    )
    app = Litestar(
        route_handlers=[*routers, openapi_document],
        openapi_config=config,
        exception_handlers=exception_handlers(unavailable),
        dto=StrictJson,
        return_dto=None,
        request_max_body_size=body_limit,
        lifespan=list(lifespan),
        before_request=_name_session,
        before_send=[_protect],
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )
    _document_errors(app)
    # Around the router itself, not as Litestar middleware: those see no request without a route (404, 405).
    handler: Any = AnswerOversizedBodies(app.asgi_handler)
    if plain_errors_under:
        handler = PlainErrors(handler, plain_errors_under)
    if cors is not None:
        handler = Cors(handler, cors)
    app.asgi_handler = RequestIds(handler, observe=observe, tracer=tracer)
    return app


_MAX_LOGGED_ID = 64


async def _name_session(request: Request[Any, Any, Any]) -> None:
    """What is logged for a request about a session says which."""
    session_id = request.path_params.get("session_id")
    if session_id is not None:
        structlog.contextvars.bind_contextvars(session_id=str(session_id)[:_MAX_LOGGED_ID])


def _operation_id(handler: HTTPRouteHandler, _method: Any, _path: Any) -> str:
    """The handler's name in camel case: what generated clients call the operation."""
    first, *rest = handler.handler_name.split("_")
    return first + "".join(word.capitalize() for word in rest)


async def _protect(message: Message, _: Scope) -> None:
    """Answers may hold a key shown once: nothing on the way may keep or reinterpret them."""
    if message["type"] != "http.response.start":
        return
    headers = list(message.get("headers", []))
    names = {name.lower() for name, _value in headers}
    headers.append((b"x-content-type-options", b"nosniff"))
    if b"cache-control" not in names:
        headers.append((b"cache-control", b"no-store"))
    message["headers"] = headers


def _document_errors(app: Litestar) -> None:
    """Every route lists the errors that the plumbing can answer, whatever else it lists itself."""
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if isinstance(handler, HTTPRouteHandler):
                statuses = _EVERY_ROUTE + (_WITH_A_BODY if handler.parsed_data_field is not None else ())
                handler.responses = {**error_responses(*statuses), **(handler.responses or {})}
