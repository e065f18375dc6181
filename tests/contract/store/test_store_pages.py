"""Pages of stored errors, on every database that the store supports."""

from __future__ import annotations

import pytest

from voicethere.adapters.store import Store
from voicethere.errors.times import iso_from_epoch
from voicethere.testing.clock import ManualClock
from voicethere.testing.queue import sample_error
from voicethere.wire.control_plane import Project


async def test_pages_reach_every_error_once_in_both_orders(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    # Three of each moment: the id decides among them.
    items = [
        sample_error(session, project.id, occurred_at=iso_from_epoch(clock.now() - number // 3))
        for number in range(50)
    ]
    await store.commit_batch(items, [])
    newest = [
        i.record.id for i in sorted(items, key=lambda i: (i.record.occurred_at, i.record.id), reverse=True)
    ]

    async def walk(*, of_session: bool) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            page = (
                await store.session_errors(project.id, session, limit=7, cursor=cursor)
                if of_session
                else await store.project_errors(project.id, limit=7, cursor=cursor)
            )
            found += [row.id for row in page.errors]
            cursor = page.next_cursor
            if cursor is None:
                return found

    assert await walk(of_session=False) == newest
    assert await walk(of_session=True) == newest[::-1]
    full = await store.project_errors(project.id, limit=50, cursor=None)
    assert (len(full.errors), full.next_cursor) == (50, None)


async def test_a_page_goes_on_where_it_was_though_newer_errors_came(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    old = [
        sample_error(session, project.id, occurred_at=iso_from_epoch(clock.now() - n)) for n in (1, 2, 3, 4)
    ]
    await store.commit_batch(old, [])
    first = await store.project_errors(project.id, limit=2, cursor=None)
    await store.commit_batch([sample_error(session, project.id, occurred_at=clock.wire_time())], [])
    second = await store.project_errors(project.id, limit=2, cursor=first.next_cursor)
    assert [row.id for row in [*first.errors, *second.errors]] == [item.record.id for item in old]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "W10",
        "bnVsbA",
        "W10=" * 400,
        "ä",
        "WyJwcm9qZWN0IiwxLDJd",
        "WyJwcm9qZWN0IiwxZTQwLCJhIl0",
    ],
)
async def test_a_cursor_that_is_none_is_refused(store: Store, project: Project, cursor: str) -> None:
    for call in (
        store.project_errors(project.id, limit=20, cursor=cursor),
        store.session_errors(project.id, "s", limit=20, cursor=cursor),
    ):
        with pytest.raises(ValueError, match="pass the next_cursor of its previous page"):
            await call


async def test_a_cursor_fits_its_own_list_only(store: Store, project: Project, session: str) -> None:
    await store.commit_batch([sample_error(session, project.id) for _ in range(3)], [])
    page = await store.project_errors(project.id, limit=1, cursor=None)
    with pytest.raises(ValueError, match="not a cursor of this list"):
        await store.session_errors(project.id, session, limit=1, cursor=page.next_cursor)


@pytest.mark.parametrize("limit", [0, -1, 101])
async def test_a_limit_out_of_range_is_refused(store: Store, project: Project, limit: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 100"):
        await store.project_errors(project.id, limit=limit, cursor=None)


async def test_errors_are_seen_within_their_project_only(
    store: Store, org: str, project: Project, session: str
) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")
    await store.commit_batch([sample_error(session, project.id)], [])
    assert len((await store.session_errors(project.id, session, limit=20, cursor=None)).errors) == 1
    assert list((await store.project_errors(other.id, limit=20, cursor=None)).errors) == []
    assert list((await store.session_errors(other.id, session, limit=20, cursor=None)).errors) == []
