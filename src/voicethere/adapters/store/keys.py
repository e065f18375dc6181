"""Orgs and the keys that speak for them: functions on a connection.

Knows only hashes of keys, never a key.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import Connection, Row, select, update

from voicethere.adapters.store import columns
from voicethere.adapters.store.projects import get_settings, require_project
from voicethere.adapters.store.records import KeyRecord, StoreConflict
from voicethere.adapters.store.tables import api_keys, orgs, projects
from voicethere.wire.control_plane import ApiKey, KeyKind
from voicethere.wire.settings import ProjectSettings

DEFAULT_ORG_SLUG = "default"

_KINDS = {KeyKind.ADMIN: "org", KeyKind.CLIENT: "client"}


def ensure_default_org(connection: Connection, now_ms: int) -> str:
    """The default org's id; made the first time, also where two processes ask at once."""
    connection.execute(
        columns.insert(connection, orgs)
        .values(id=str(uuid.uuid4()), slug=DEFAULT_ORG_SLUG, name="Default", created_at_ms=now_ms)
        .on_conflict_do_nothing(index_elements=["slug"])
    )
    org_id: str = connection.execute(select(orgs.c.id).where(orgs.c.slug == DEFAULT_ORG_SLUG)).scalar_one()
    return org_id


def create_key(
    connection: Connection,
    now_ms: int,
    *,
    org_id: str,
    name: str,
    kind: KeyKind,
    project_id: str | None,
    token_hash: str,
    prefix: str,
    expires_at_ms: int | None,
) -> ApiKey:
    """Keep a new key's hash.

    Raises:
        LookupError: the org has no such project.
        ValueError: a client key without a project.
        StoreConflict: this very key is there already.
    """
    if project_id is not None:
        require_project(connection, project_id, org_id=org_id)
    elif kind is KeyKind.CLIENT:
        raise ValueError("a client key is bound to one project: pass its project_id")
    key_id = str(uuid.uuid4())
    inserted = columns.count_inserted(
        connection,
        columns.insert(connection, api_keys)
        .values(
            id=key_id,
            org_id=org_id,
            project_id=project_id,
            name=name,
            kind=kind.value,
            prefix=prefix,
            token_hash=token_hash,
            created_at_ms=now_ms,
            expires_at_ms=expires_at_ms,
        )
        .on_conflict_do_nothing(index_elements=["token_hash"]),
    )
    if inserted == 0:
        raise StoreConflict("this key exists already: make another one")
    return _key(connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one())


def list_keys(connection: Connection, org_id: str) -> Sequence[ApiKey]:
    """Oldest first, revoked and expired ones too."""
    rows = connection.execute(select(api_keys).where(api_keys.c.org_id == org_id).order_by(api_keys.c.number))
    return [_key(row) for row in rows]


def revoke_key(connection: Connection, now_ms: int, *, org_id: str, key_id: str) -> bool:
    """Whether the org has this key; from now on, or from an earlier moment, it is revoked."""
    mine = (api_keys.c.id == key_id) & (api_keys.c.org_id == org_id)
    if connection.execute(select(api_keys.c.id).where(mine)).first() is None:
        return False
    connection.execute(
        update(api_keys).where(mine, api_keys.c.revoked_at_ms.is_(None)).values(revoked_at_ms=now_ms)
    )
    return True


def find_key(connection: Connection, now_ms: int, token_hash: str) -> KeyRecord | None:
    """The live key with this hash."""
    row = connection.execute(
        select(api_keys.c.id, api_keys.c.kind, api_keys.c.org_id, api_keys.c.project_id).where(
            api_keys.c.token_hash == token_hash,
            api_keys.c.revoked_at_ms.is_(None),
            api_keys.c.expires_at_ms.is_(None) | (api_keys.c.expires_at_ms > now_ms),
        )
    ).first()
    if row is None:
        return None
    return KeyRecord(id=row.id, kind=_KINDS[KeyKind(row.kind)], org_id=row.org_id, project_id=row.project_id)


def find_key_and_settings(
    connection: Connection, now_ms: int, token_hash: str, project_id: str | None
) -> tuple[KeyRecord | None, ProjectSettings | None]:
    """The live key with this hash, and the settings of this project (of its own, without one) where its org
    has it."""
    key = find_key(connection, now_ms, token_hash)
    if key is None:
        return None, None
    named = key.project_id if project_id is None else project_id
    if named is None:
        return key, None
    try:
        column = projects.c.project_settings
        return key, get_settings(connection, named, column, ProjectSettings, org_id=key.org_id)
    except LookupError:
        return key, None


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        kind=KeyKind(row.kind),
        prefix=row.prefix,
        project_id=row.project_id,
        created_at=columns.to_wire(row.created_at_ms),
        expires_at=columns.to_wire_or_none(row.expires_at_ms),
        revoked_at=columns.to_wire_or_none(row.revoked_at_ms),
    )
