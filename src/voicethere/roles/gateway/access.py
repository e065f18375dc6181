"""Who may talk to which project's agent, and from which pages (contract: sem-chat.md, "Who may talk").

Knows keys, projects and origins; it does not know conversations. A client key stands in the path, because
chat clients that others wrote cannot add headers to a socket: it is taken out before anything can log it.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from voicethere.adapters.http.auth import KEY_PREFIXES, BearerAuth, token_hash
from voicethere.adapters.http.errors import HttpProblem, forbidden, not_found
from voicethere.adapters.store.store import Store
from voicethere.wire.http import HttpErrorCode

CHAT_PREFIX = "/c/"
KEY_IN_PATH = "client-key"
"""What stands in a request's path in place of the key once it was taken out."""

_STATE_KEY = "voicethere_chat_key"
_MAX_KEY_CHARS = 256
_SLASHES = re.compile("/{2,}")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="voicethere", error="invalid_token"'}


class KeyOutOfPath:
    """ASGI middleware, around everything else: no log, trace or error ever holds the key of `/c/{key}/…`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in (ScopeType.HTTP, ScopeType.WEBSOCKET):
            _join_slashes(scope)
            if scope["path"].startswith(CHAT_PREFIX):
                _take_key(scope)
        await self._app(scope, receive, send)


def _join_slashes(scope: Any) -> None:
    """A base that was put together with a slash too many (`//c/…`, `…//ws`) is the same base, with a key."""
    path = _SLASHES.sub("/", scope["path"])
    if path != scope["path"] and path.startswith(CHAT_PREFIX):
        _set_path(scope, path)


def _take_key(scope: Any) -> None:
    base, slash, rest = scope["path"].removeprefix(CHAT_PREFIX).partition("/")
    if not base.startswith(tuple(KEY_PREFIXES.values())):
        return
    scope.setdefault("state", {})[_STATE_KEY] = base[: _MAX_KEY_CHARS + 1]
    _set_path(scope, f"{CHAT_PREFIX}{KEY_IN_PATH}{slash}{rest}")


def _set_path(scope: Any, path: str) -> None:
    scope["path"] = path
    scope["raw_path"] = path.encode("utf-8", "surrogateescape")


class Credentials(msgspec.Struct, frozen=True):
    """What a request came with. Two requests with equal ones may do the same.

    `base` is the path's part behind `/c/`: a project id where `in_path` (the SHA-256 of a client key that
    stood there) is None; then `bearer` is the SHA-256 of the key in `Authorization`, if there was a good one.
    """

    base: str
    origin: str | None = None
    in_path: str | None = None
    bearer: str | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who may talk: with this project's agent."""

    project_id: str
    key_id: str
    credentials: Credentials
    issued_only: bool
    monthly_session_limit: int


class Access:
    """Looks each request's key and project up; nothing is remembered, so that a revoked key ends at once."""

    def __init__(self, store: Store, auth: BearerAuth) -> None:
        self._store = store
        self._auth = auth

    async def admit(self, connection: ASGIConnection[Any, Any, Any, Any], base: str) -> Caller:
        """Whom this request speaks for.

        sem-chat: "The gateway's base is /c/{client key}" and "/c/{project id} with an Authorization header
        serves all other keys".

        Raises:
            HttpProblem: 401, 403 or 404; the words never say whether a key once existed.
            StoreUnavailable: the database is away.
        """
        origin = connection.headers.get("origin")
        origin = None if origin is None else origin.lower()
        key = connection.scope.get("state", {}).get(_STATE_KEY)
        if isinstance(key, str):
            digest = token_hash(key) if len(key) <= _MAX_KEY_CHARS else ""
            return await self.check(Credentials(base=KEY_IN_PATH, origin=origin, in_path=digest))
        principal = await self._auth.authenticate(connection)
        if principal.kind == "service":
            raise forbidden("Service credentials cannot chat; use an org, user or client key.")
        token = connection.headers["authorization"].strip().partition(" ")[2].strip()
        return await self.check(Credentials(base=base, origin=origin, bearer=token_hash(token)))

    async def check(self, credentials: Credentials) -> Caller:
        """The same of credentials that were taken from a request before: whether they are still good.

        Raises:
            HttpProblem, StoreUnavailable: see `admit`.
        """
        in_path = credentials.in_path is not None
        key, settings = await self._store.find_key_and_settings(
            credentials.in_path or credentials.bearer or "", None if in_path else credentials.base
        )
        if key is None:
            raise HttpProblem(
                401, HttpErrorCode.UNAUTHORIZED, "The key is unknown, expired or revoked.", headers=_CHALLENGE
            )
        if in_path and (key.kind != "client" or key.project_id is None):
            raise forbidden(
                "Only client keys may be in a path: send this one in Authorization, to /c/{project id}."
            )
        project_id = key.project_id if in_path else credentials.base
        if project_id is None or settings is None or key.project_id not in (None, project_id):
            raise not_found("project")
        origin = credentials.origin
        if origin is not None and settings.allowed_origins and origin not in settings.allowed_origins:
            raise forbidden("Pages of this origin may not use this project: add it to its `allowed_origins`.")
        return Caller(
            project_id=project_id,
            key_id=key.id,
            credentials=credentials,
            issued_only=settings.require_issued_conversations,
            monthly_session_limit=settings.monthly_session_limit,
        )
