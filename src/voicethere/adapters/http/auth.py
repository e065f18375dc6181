"""Bearer keys: what they look like, how they are checked, and who a request speaks for.

Knows no database: whoever builds the app gives a `lookup` of key hashes. Tokens are never stored or
logged, only their SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

import msgspec
from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler

from voicethere.adapters.http.errors import HttpProblem
from voicethere.wire.http import HttpErrorCode

PrincipalKind = Literal["org", "user", "client", "service"]
KeyTokenKind = Literal["org", "user", "client"]

KEY_PREFIXES: dict[KeyTokenKind, str] = {"org": "vth_", "user": "vthu_", "client": "vthc_"}
_TOKEN_BYTES = 24  # 192 random bits
_SHOWN_RANDOM_CHARS = 6
_MAX_TOKEN_CHARS = 256
_STATE_KEY = "voicethere_principal"

Connection = ASGIConnection[Any, Any, Any, Any]


class LiveKey(Protocol):
    """What a lookup finds: a key that is neither revoked nor expired."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def org_id(self) -> str: ...
    @property
    def project_id(self) -> str | None: ...


KeyLookup = Callable[[str], Awaitable[LiveKey | None]]
"""From the SHA-256 (hex) of a token to its key."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a request speaks for. A `service` is a part of this platform: it has no org.

    `project_id` is set for keys that are bound to one project; they see no other.
    """

    key_id: str
    kind: PrincipalKind
    org_id: str | None
    project_id: str | None

    def may_see(self, project_id: str) -> bool:
        """Whether the key's own binding allows this project (its org is checked by whoever reads it)."""
        return self.project_id is None or self.project_id == project_id


def token_hash(token: str) -> str:
    """SHA-256 of a token in hex: the only form in which one is kept."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def new_key(kind: KeyTokenKind) -> tuple[str, str, str]:
    """`(token, hash, prefix)` of a new key: the token is shown once, the prefix tells keys apart in lists."""
    start = KEY_PREFIXES[kind]
    token = start + secrets.token_urlsafe(_TOKEN_BYTES)
    return token, token_hash(token), token[: len(start) + _SHOWN_RANDOM_CHARS]


class BearerAuth:
    """Checks `Authorization: Bearer …`.

    Use `guard` on a router: guards run before a body is read, so a stranger cannot make the server read
    megabytes. `principal` is then a dependency of the handlers:

        >>> auth = BearerAuth(store.find_key)
        >>> Router("/v1", route_handlers=[...], guards=[auth.guard],
        ...        dependencies={"principal": Provide(auth.principal)})
    """

    def __init__(self, lookup: KeyLookup, service_token_hash: str | None = None) -> None:
        self._lookup = lookup
        self._service_token_hash = service_token_hash

    def __deepcopy__(self, _: dict[int, Any]) -> BearerAuth:
        """Itself: Litestar copies handlers with their guards, and what is behind the lookup is only one."""
        return self

    async def authenticate(self, connection: Connection) -> Principal:
        """Whom this connection speaks for.

        Raises:
            HttpProblem: 401; the words never say whether a key once existed.
        """
        token = _bearer_token(connection)
        digest = token_hash(token)
        if self._service_token_hash is not None and hmac.compare_digest(digest, self._service_token_hash):
            return Principal(key_id="service", kind="service", org_id=None, project_id=None)
        key = await self._lookup(digest)
        if key is None or key.kind not in ("org", "user", "client"):
            raise _unauthorized("The key is unknown, expired or revoked.", invalid=True)
        return Principal(
            key_id=key.id,
            kind=msgspec.convert(key.kind, PrincipalKind),
            org_id=key.org_id,
            project_id=key.project_id,
        )

    async def guard(self, connection: Connection, _: BaseRouteHandler) -> None:
        """A Litestar guard: authenticates and remembers the principal for `principal`."""
        connection.scope["state"][_STATE_KEY] = await self.authenticate(connection)

    async def principal(self, request: Request[Any, Any, Any]) -> Principal:
        """A Litestar dependency: the principal that `guard` found, or the result of `authenticate`."""
        known = request.scope["state"].get(_STATE_KEY)
        return known if isinstance(known, Principal) else await self.authenticate(request)


def principal_of(connection: Connection) -> Principal:
    """The principal that `BearerAuth.guard` found for this connection (for further guards).

    Raises:
        HttpProblem: 401 where no guard has run.
    """
    known = connection.scope["state"].get(_STATE_KEY)
    if not isinstance(known, Principal):
        raise _unauthorized("Send a key: `Authorization: Bearer <key>`.", invalid=False)
    return known


def _bearer_token(connection: Connection) -> str:
    values = connection.headers.getall("authorization", [])
    if not values:
        raise _unauthorized("Send a key: `Authorization: Bearer <key>`.", invalid=False)
    scheme, _, token = values[0].strip().partition(" ")
    token = token.strip()
    if len(values) > 1 or scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN_CHARS:
        raise _unauthorized("The Authorization header must be `Bearer <key>`, once.", invalid=True)
    return token


def _unauthorized(message: str, *, invalid: bool) -> HttpProblem:
    challenge = 'Bearer realm="voicethere"' + (', error="invalid_token"' if invalid else "")
    return HttpProblem(401, HttpErrorCode.UNAUTHORIZED, message, headers={"WWW-Authenticate": challenge})
