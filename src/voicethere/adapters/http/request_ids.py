"""Gives every request an id, puts it into the response and the log, and logs one line per request.

Knows ASGI only. Query strings are never logged: they may hold a join token.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = "x-request-id"
_HEADER = REQUEST_ID_HEADER.encode()
_STATE_KEY = "voicethere_request_id"
_SANE = re.compile(r"[A-Za-z0-9._-]{8,64}")
_MAX_LOGGED_PATH = 300

_log = structlog.get_logger("voicethere.http")


def request_id_of(scope: Mapping[str, Any] | Scope) -> str:
    """The id of this request; empty where `RequestIds` does not wrap the app."""
    state = scope.get("state") or {}
    return str(state.get(_STATE_KEY, ""))


class RequestIds:
    """ASGI middleware. Wraps everything else, so that errors of the router have an id as well."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, tagged_send)
            finally:
                _log.info(
                    "request",
                    method=scope.get("method", "WEBSOCKET"),
                    path=scope["path"][:_MAX_LOGGED_PATH],
                    status=status,
                    duration_ms=round((time.monotonic() - started) * 1000, 1),
                )


def _incoming(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == _HEADER:
            text = value.decode("latin-1")
            return text if _SANE.fullmatch(text) else None
    return None
