"""CORS for browser pages on other origins, on chosen paths, for every answer, errors included.

An error without these headers looks like a network failure to a page. Keys are bearer tokens and no
cookies are involved, so any origin may be allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send


class CorsPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which paths answer pages of other origins, and which origins those are.

    A path is meant by `path_prefixes` when it begins with one of them. `origins` of `("*",)` allows all.
    """

    path_prefixes: Sequence[str]
    origins: Sequence[str] = ("*",)
    methods: Sequence[str] = ("GET", "POST", "DELETE")
    request_headers: Sequence[str] = ("Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id")
    exposed_headers: Sequence[str] = ("x-request-id", "Retry-After")
    max_age_seconds: int = 600

    def allowed_origin(self, origin: str) -> str | None:
        """The value of `Access-Control-Allow-Origin` for a page of this origin; None: not allowed."""
        if "*" in self.origins:
            return "*"
        return origin if origin in self.origins else None

    def covers(self, path: str) -> bool:
        """Whether this policy is about that path."""
        return any(path.startswith(prefix) for prefix in self.path_prefixes)


class Cors:
    """ASGI middleware: answers preflights itself and adds the headers to all other answers."""

    def __init__(self, app: ASGIApp, policy: CorsPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or not self._policy.covers(scope["path"]):
            await self._app(scope, receive, send)
            return
        received = dict(scope["headers"])
        origin = received.get(b"origin")
        headers = self._headers(origin.decode("latin-1") if origin is not None else None)
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in received:
            await send({"type": "http.response.start", "status": 204, "headers": headers + self._preflight()})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _headers(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = []
        allowed = self._policy.allowed_origin(origin or "")
        if allowed is not None:
            headers.append((b"access-control-allow-origin", allowed.encode("latin-1")))
            headers.append(
                (b"access-control-expose-headers", ", ".join(self._policy.exposed_headers).encode())
            )
        if allowed != "*":
            headers.append((b"vary", b"Origin"))
        return headers

    def _preflight(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"access-control-allow-methods", ", ".join(self._policy.methods).encode()),
            (b"access-control-allow-headers", ", ".join(self._policy.request_headers).encode()),
            (b"access-control-max-age", str(self._policy.max_age_seconds).encode()),
        ]
