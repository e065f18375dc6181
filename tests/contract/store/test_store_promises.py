"""Deletion, concurrency, the end, and what must be the same on every database that the store supports."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tests.contract.store.rows import HASH, ended, make_build
from voicethere.adapters.store import CommittedBatch, Store, StoreConflict, StoreUnavailable
from voicethere.testing.clock import ManualClock
from voicethere.testing.queue import sample_error
from voicethere.wire.control_plane import DeployMode, KeyKind, Project
from voicethere.wire.queue import QueueItem

# ------------------------------------------------------------------ the platform's own


async def test_a_platform_secret_is_made_once(store: Store) -> None:
    made: list[bytes] = []

    def make() -> bytes:
        made.append(uuid.uuid4().bytes)
        return made[-1]

    first = await store.platform_secret("join-tokens", make)
    assert made == [first]
    assert {await store.platform_secret("join-tokens", make) for _ in range(3)} == {first}
    assert await store.platform_secret("other", make) == made[1] != first
    at_once = await asyncio.gather(*(store.platform_secret("race", make) for _ in range(8)))
    assert len(set(at_once)) == 1
    await store.ping()


# ------------------------------------------------------------------ deletion, concurrency, the end


async def test_a_deleted_project_takes_everything_with_it(
    store: Store, org: str, project: Project, session: str
) -> None:
    build = await make_build(store, project)
    deployment = await store.create_deployment(
        project_id=project.id, build_id=build.id, mode=DeployMode.DRAIN
    )
    await store.put_secret(project.id, "A", "b")
    await store.create_key(
        org_id=org,
        name="web",
        kind=KeyKind.CLIENT,
        project_id=project.id,
        token_hash=HASH,
        prefix="vthc_",
        expires_at=None,
    )
    await store.commit_batch([sample_error(session, project.id)], [])
    assert await store.delete_project(project.id, org_id=org)
    assert not await store.delete_project(project.id, org_id=org)
    assert await store.find_key(HASH) is None
    assert await store.get_session(session) is None
    assert await store.get_deployment(deployment.id, org_id=org) is None
    assert list(await store.list_builds(project.id)) == []
    assert await store.get_secrets(project.id) == {}
    assert list((await store.project_errors(project.id, limit=20, cursor=None)).errors) == []
    late = await store.commit_batch([sample_error(session, project.id)], [])
    assert late == CommittedBatch(inserted=0, duplicates=0, dead=1, ended=0)


async def test_writes_at_the_same_time_do_not_fail_one_another(
    store: Store, org: str, project: Project
) -> None:
    results = await asyncio.gather(
        *(
            store.create_session(
                session_id=f"s{number % 150}",
                project_id=project.id,
                build_id=None,
                customer_context=None,
                idempotency_key=None,
            )
            for number in range(300)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(result, StoreConflict) for result in results) == 150
    assert len(await store.list_sessions(project.id, start=None, end=None, limit=1000)) == 150


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.aclose()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.ensure_default_org()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.get_session("s")
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.ping()


@pytest.mark.parametrize(
    ("bad_url", "problem"),
    [
        ("", "not a database URL"),
        ("x y", "not a database URL"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("mysql://u:p4ssw0rd@h/d", "'mysql' is not a database that is supported: use sqlite:///path"),
        ("postgresql+asyncpg://h/d?password=p4ssw0rd", "use .* or postgresql://user:password@host/database"),
    ],
)
async def test_a_url_of_no_supported_database_is_refused(bad_url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        await Store.open(bad_url)
    assert "p4ssw0rd" not in str(caught.value)


# ------------------------------------------------------------------ what must be the same on every database


async def test_characters_that_a_database_does_not_store_are_replaced(
    store: Store, org: str, project: Project, session: str
) -> None:
    replaced = "a\ufffdb"
    await store.put_secret(project.id, "A", "a\0b")
    assert await store.get_secrets(project.id) == {"A": replaced}
    assert (await store.create_project(org_id=org, name="a\0b", slug="nul")).name == replaced
    bad = sample_error(
        session,
        project.id,
        id="a\0b",
        message="a\0b",
        stack="a\0b",
        client_message="a\0b",
        customer_context={"a\0b": "a\0b"},
        details={"a\0b": "a\0b"},
    )
    items: list[QueueItem] = [
        bad,
        sample_error("a\0b", project.id),
        ended(session, project.id, reason="a\0b"),
    ]
    committed = await store.commit_batch(items, [(b"a\0b", "a\0b")])
    assert committed == CommittedBatch(inserted=1, duplicates=0, dead=2, ended=1)
    assert (await store.commit_batch([bad], [])).duplicates == 1
    (row,) = (await store.project_errors(project.id, limit=20, cursor=None)).errors
    assert (row.id, row.message, row.stack_trace, row.client_message) == (replaced,) * 4
    assert row.customer_context == row.details == {"a\0b": "a\0b"}
    record = await store.get_session(session)
    assert record is not None
    assert record.end_reason == replaced
    letters = await store.dead_letters()
    assert [(letter.data[:3], letter.problem[:24]) for letter in letters] == [
        (b'{"t', "there is no session 'a\\x"),
        (b"a\0b", replaced),
    ]
    assert await store.get_session("a\0b") is None


async def test_ids_are_ordered_by_their_bytes(
    store: Store, org: str, project: Project, session: str, clock: ManualClock
) -> None:
    ids = ["a", "B", "_", "é", "Z", "10", "9", "a-b", "ab", "\U0001f635", "\uffff"]
    at = clock.wire_time()
    await store.commit_batch([sample_error(session, project.id, id=name, occurred_at=at) for name in ids], [])
    found: list[str] = []
    cursor = None
    while True:
        page = await store.session_errors(project.id, session, limit=3, cursor=cursor)
        found += [row.id for row in page.errors]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == sorted(ids, key=str.encode)
    for name in ids[:3]:
        await store.create_project(org_id=org, name=name, slug=f"s{ids.index(name)}")
    names = [found.name for found in await store.list_projects(org)]
    assert names == ["B", "Pizza", "_", "a"]


async def test_a_project_that_is_deleted_meanwhile_takes_its_errors_along(
    store: Store, org: str, project: Project, session: str
) -> None:
    batches = [[sample_error(session, project.id) for _ in range(20)] for _ in range(8)]
    results = await asyncio.gather(
        *(store.commit_batch(batch, []) for batch in batches[:4]),
        store.delete_project(project.id, org_id=org),
        *(store.commit_batch(batch, []) for batch in batches[4:]),
    )
    assert results.pop(4) is True
    assert sum(part.inserted + part.dead for part in results) == 160
    assert list((await store.project_errors(project.id, limit=20, cursor=None)).errors) == []
