"""Routes: API keys. A key is shown once, in the answer to its creation; only its hash is kept."""

from __future__ import annotations

import msgspec
from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET

from voicethere.adapters.http.auth import Principal, new_key
from voicethere.adapters.http.errors import conflict, error_responses, invalid, not_found
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.control.access import find_project, require_id, require_org_wide, require_printable
from voicethere.roles.control.plane import ControlPlane
from voicethere.wire.control_plane import ApiKey, ApiKeyList, CreateApiKey, KeyKind

_SECONDS_A_DAY = 86_400


class ApiKeyRoutes(Controller):
    path = "/api-keys"
    tags = ("api keys",)

    @get(summary="List the keys, without the keys themselves")
    async def list_keys(
        self, plane: NamedDependency[ControlPlane], principal: NamedDependency[Principal]
    ) -> ApiKeyList:
        return ApiKeyList(api_keys=list(await plane.store.list_keys(require_org_wide(principal))))

    @post(summary="Create a key")
    async def create_key(
        self,
        data: JSONBody[CreateApiKey],
        plane: NamedDependency[ControlPlane],
        principal: NamedDependency[Principal],
    ) -> ApiKey:
        """`key` is in this answer only. A `client` key belongs to one project and may only start and poll
        its sessions; an `admin` key with a `project_id` sees that project only."""
        org_id = require_org_wide(principal)
        name = require_printable("name", data.name).strip()
        if not name:
            raise invalid("`name`: must hold more than spaces.")
        project_id = None
        if data.project_id is not UNSET:
            project_id = (await find_project(plane, principal, data.project_id)).id
        elif data.kind is KeyKind.CLIENT:
            raise invalid("`project_id`: a client key is bound to one project; name it.")
        expires_at = None
        if data.expires_in_days is not UNSET:
            expires_at = iso_from_epoch(plane.clock.now() + data.expires_in_days * _SECONDS_A_DAY)
        token, token_hash, prefix = new_key("client" if data.kind is KeyKind.CLIENT else "org")
        created = await plane.store.create_key(
            org_id=org_id,
            name=name,
            kind=data.kind,
            project_id=project_id,
            token_hash=token_hash,
            prefix=prefix,
            expires_at=expires_at,
        )
        return msgspec.structs.replace(created, key=token)

    @delete("/{key_id:str}", summary="Revoke a key", responses=error_responses(409))
    async def revoke_key(
        self,
        key_id: FromPath[str],
        plane: NamedDependency[ControlPlane],
        principal: NamedDependency[Principal],
    ) -> None:
        """It stops working at once. A key cannot revoke itself: nobody locks themselves out by mistake."""
        org_id = require_org_wide(principal)
        if require_id(key_id, "key") == principal.key_id:
            raise conflict("This is the key of this very request: use another one to revoke it.")
        if not await plane.store.revoke_key(org_id, key_id):
            raise not_found("key")
