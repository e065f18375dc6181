"""Gives every request an id, puts it into the response and the log, and logs one line per request.

Whoever wants to count or trace requests hears of each here. Knows ASGI only. Query strings are never logged:
they may hold a join token.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from voicethere.core.tracing import NO_TRACER, Tracer

REQUEST_ID_HEADER = "x-request-id"
_HEADER = REQUEST_ID_HEADER.encode()
_STATE_KEY = "voicethere_request_id"
_SANE = re.compile(r"[A-Za-z0-9._-]{8,64}")
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_MAX_LOGGED_PATH = 300
NO_ROUTE = "none"
SIGNALING = "WEBSOCKET"

_log = structlog.get_logger("voicethere.http")


def request_id_of(scope: Mapping[str, Any] | Scope) -> str:
    """The id of this request; empty where `RequestIds` does not wrap the app."""
    state = scope.get("state") or {}
    return str(state.get(_STATE_KEY, ""))


class SeenRequest(msgspec.Struct, frozen=True):
    """One request that is over, with nothing of its caller's choosing in it: fit for labels.

    `method` is `OTHER` where it is none of the usual ones, and `WEBSOCKET` for a socket; `route` is the
    template (`/v1/sessions/{session_id}`), `none` where no route fits; `status` is 0 where the caller left.
    """

    method: str
    route: str
    status: int
    seconds: float


class RequestIds:
    """ASGI middleware. Wraps everything else, so that errors of the router have an id as well.

    `observe` hears of each request when it is over. `route` names the route of an app that has only one.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        observe: Callable[[SeenRequest], None] | None = None,
        tracer: Tracer = NO_TRACER,
        route: str | None = None,
    ) -> None:
        self._app = app
        self._observe = observe
        self._tracer = tracer
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _incoming(scope) or secrets.token_hex(16)
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state[_STATE_KEY] = request_id
        status = 0
        started = time.monotonic()

        async def tagged_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                others = [pair for pair in message.get("headers", []) if pair[0].lower() != _HEADER]
                message["headers"] = [*others, (_HEADER, request_id.encode())]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        with contextlib.ExitStack() as stack:
            stack.enter_context(structlog.contextvars.bound_contextvars(request_id=request_id))
            stack.callback(structlog.contextvars.unbind_contextvars, "session_id")  # what it was about
            method = _method(scope)
            span = None
            if method != SIGNALING:  # a socket is open for as long as its session: no span lasts that long
                span = stack.enter_context(
                    self._tracer.span(
                        f"{method} request",
                        parent=_header(scope, b"traceparent", _TRACEPARENT),
                        http__request__method=method,
                        voicethere__request_id=request_id,
                    )
                )
            try:
                await self._app(scope, receive, tagged_send)
            finally:
                seconds = time.monotonic() - started
                route = self._route or str(scope.get("path_template") or NO_ROUTE)
                _log.info(
                    "request",
                    method=scope.get("method", SIGNALING),
                    path=scope["path"][:_MAX_LOGGED_PATH],
                    status=status,
                    duration_ms=round(seconds * 1000, 1),
                )
                if span is not None:
                    span.set(http__route=route, http__response__status_code=status)
                if self._observe is not None:
                    self._observe(SeenRequest(method, route, status, seconds))


def _method(scope: Scope) -> str:
    if scope["type"] == ScopeType.WEBSOCKET:
        return SIGNALING
    method = str(scope.get("method", ""))
    return method if method in _METHODS else "OTHER"


def _incoming(scope: Scope) -> str | None:
    return _header(scope, _HEADER, _SANE)


def _header(scope: Scope, wanted: bytes, sane: re.Pattern[str]) -> str | None:
    for name, value in scope["headers"]:
        if name == wanted:
            text = value.decode("latin-1")
            return text if sane.fullmatch(text) else None
    return None
