"""Keys, projects and what is configured, on every database that the store supports."""

from __future__ import annotations

import asyncio
import uuid

import msgspec
import pytest

from tests.contract.store.rows import HASH
from voicethere.adapters.store import Store, StoreConflict
from voicethere.errors.times import iso_from_epoch
from voicethere.testing.clock import ManualClock
from voicethere.wire.control_plane import KeyKind, Project
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import ProjectSettings, SessionSettings

# ------------------------------------------------------------------ orgs and keys


async def test_there_is_one_default_org(store: Store) -> None:
    assert len({await store.ensure_default_org() for _ in range(3)}) == 1


async def test_a_key_is_found_by_its_hash_until_it_expires(
    store: Store, org: str, clock: ManualClock
) -> None:
    expires_at = iso_from_epoch(clock.now() + 60)
    key = await store.create_key(
        org_id=org,
        name="ci",
        kind=KeyKind.ADMIN,
        project_id=None,
        token_hash=HASH,
        prefix="vth_ab",
        expires_at=expires_at,
    )
    assert key.key is msgspec.UNSET
    assert key.expires_at == expires_at
    found = await store.find_key(HASH)
    assert found is not None
    assert (found.id, found.kind, found.org_id, found.project_id) == (key.id, "org", org, None)
    clock.advance(60)
    assert await store.find_key(HASH) is None
    assert await store.find_key("cd" * 32) is None
    assert list(await store.list_keys(org)) == [key]


async def test_a_client_key_is_bound_to_a_project_and_can_be_revoked(
    store: Store, org: str, project: Project, clock: ManualClock
) -> None:
    key = await store.create_key(
        org_id=org,
        name="web",
        kind=KeyKind.CLIENT,
        project_id=project.id,
        token_hash=HASH,
        prefix="vthc_ab",
        expires_at=None,
    )
    found = await store.find_key(HASH)
    assert found is not None
    assert (found.kind, found.project_id) == ("client", project.id)
    assert not await store.revoke_key("another org", key.id)
    assert not await store.revoke_key(org, "no such key")
    assert await store.revoke_key(org, key.id)
    revoked_at = clock.wire_time()
    clock.advance(5)
    assert await store.revoke_key(org, key.id)
    assert await store.find_key(HASH) is None
    assert [key.revoked_at for key in await store.list_keys(org)] == [revoked_at]


async def test_a_key_is_found_with_the_settings_of_a_project_that_its_org_has(
    store: Store, org: str, project: Project, clock: ManualClock
) -> None:
    other = "ef" * 32
    for kind, bound, token_hash in ((KeyKind.CLIENT, project.id, HASH), (KeyKind.ADMIN, None, other)):
        await store.create_key(
            org_id=org,
            name="web",
            kind=kind,
            project_id=bound,
            token_hash=token_hash,
            prefix="vth_ab",
            expires_at=iso_from_epoch(clock.now() + 60),
        )
    settings = ProjectSettings(allowed_origins=["https://pizza.example"])
    await store.put_project_settings(project.id, settings)
    key, found = await store.find_key_and_settings(HASH, None)
    assert key is not None
    assert (key.project_id, found) == (project.id, settings)
    key, found = await store.find_key_and_settings(other, project.id)
    assert key is not None
    assert (key.kind, found) == ("org", settings)
    for project_id in (None, "nope"):
        key, found = await store.find_key_and_settings(other, project_id)
        assert key is not None
        assert found is None
    clock.advance(60)
    assert await store.find_key_and_settings(HASH, None) == (None, None)


async def test_keys_that_make_no_sense_are_refused(store: Store, org: str) -> None:
    async def create(kind: KeyKind, project_id: str | None) -> object:
        return await store.create_key(
            org_id=org,
            name="k",
            kind=kind,
            project_id=project_id,
            token_hash=HASH,
            prefix="vth_",
            expires_at=None,
        )

    with pytest.raises(ValueError, match="bound to one project"):
        await create(KeyKind.CLIENT, None)
    with pytest.raises(LookupError, match="there is no project 'nope'"):
        await create(KeyKind.CLIENT, "nope")
    await create(KeyKind.ADMIN, None)
    with pytest.raises(StoreConflict):
        await create(KeyKind.ADMIN, None)


# ------------------------------------------------------------------ projects and what is configured


async def test_a_project_is_seen_by_its_own_org_only(store: Store, org: str, project: Project) -> None:
    assert uuid.UUID(project.id).version == 4
    assert not project.is_deployed
    assert await store.get_project(project.id, org_id=org) == project
    assert await store.get_project(project.id, org_id="another") is None
    assert list(await store.list_projects(org)) == [project]
    assert list(await store.list_projects("another")) == []
    assert not await store.delete_project(project.id, org_id="another")


async def test_a_slug_is_taken_once(store: Store, org: str, project: Project) -> None:
    with pytest.raises(StoreConflict, match="'pizza' already"):
        await store.create_project(org_id=org, name="Other", slug="pizza")
    results = await asyncio.gather(
        *(store.create_project(org_id=org, name="Race", slug="race") for _ in range(5)),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["Project"] + ["StoreConflict"] * 4


async def test_settings_have_defaults_and_are_kept(store: Store, project: Project) -> None:
    assert await store.get_session_settings(project.id) == SessionSettings()
    assert await store.get_project_settings(project.id) == ProjectSettings()
    sessions = SessionSettings(error_message="Désolé \U0001f635", client_stack_traces=False)
    settings = ProjectSettings(mode=Mode.DATA)
    await store.put_session_settings(project.id, sessions)
    await store.put_project_settings(project.id, settings)
    assert await store.get_session_settings(project.id) == sessions
    assert await store.get_project_settings(project.id) == settings
    for call in (
        store.get_session_settings("nope"),
        store.get_project_settings("nope"),
        store.put_session_settings("nope", sessions),
        store.put_project_settings("nope", settings),
    ):
        with pytest.raises(LookupError, match="no project 'nope'"):
            await call


async def test_environment_and_secrets_are_kept_apart(store: Store, project: Project) -> None:
    await store.put_environment(project.id, "REGION", "eu")
    await store.put_environment(project.id, "REGION", "us")
    await store.put_secret(project.id, "API_KEY", "s3cret")
    assert await store.get_environment(project.id) == {"REGION": "us"}
    assert await store.get_secrets(project.id) == {"API_KEY": "s3cret"}
    assert await store.get_secrets("another") == {}
    assert not await store.delete_environment(project.id, "API_KEY")
    assert await store.delete_environment(project.id, "REGION")
    assert await store.delete_secret(project.id, "API_KEY")
    assert not await store.delete_secret(project.id, "API_KEY")
    assert (await store.get_environment(project.id), await store.get_secrets(project.id)) == ({}, {})
    with pytest.raises(LookupError):
        await store.put_secret("nope", "A", "b")
