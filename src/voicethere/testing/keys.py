"""API keys for tests: made as the platform makes them, without its API."""

from __future__ import annotations

from voicethere.adapters.http.auth import new_key
from voicethere.adapters.store.store import Store
from voicethere.wire.control_plane import KeyKind


async def issue_key(store: Store, org_id: str, kind: KeyKind, project_id: str | None = None) -> str:
    """The token of a new key that does not expire; a client key is its project's."""
    token, digest, prefix = new_key("client" if kind is KeyKind.CLIENT else "org")
    await store.create_key(
        org_id=org_id,
        name="test",
        kind=kind,
        project_id=project_id,
        token_hash=digest,
        prefix=prefix,
        expires_at=None,
    )
    return token
