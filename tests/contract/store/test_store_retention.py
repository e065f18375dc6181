"""What is deleted and what is kept, on every database that the store supports."""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.store.rows import make_sessions, suppressed
from voicethere.adapters.store import RetentionDone, Store, retention
from voicethere.errors.times import iso_from_epoch
from voicethere.testing.clock import ManualClock
from voicethere.testing.queue import sample_error
from voicethere.wire.control_plane import Project
from voicethere.wire.queue import SessionEndedItem
from voicethere.wire.settings import ProjectSettings


async def fill(store: Store, project: Project, session: str, clock: ManualClock, ages: range) -> None:
    """Errors of one project, so many days old; the name of each is its age."""
    await store.commit_batch(
        [
            sample_error(
                session,
                project.id,
                id=f"{project.slug}-{age}",
                occurred_at=iso_from_epoch(clock.now() - age * 86400),
            )
            for age in ages
        ],
        [],
    )


async def kept(store: Store, project: Project) -> list[str]:
    page = await store.project_errors(project.id, limit=100, cursor=None)
    return [row.id.partition("-")[2] for row in page.errors]


async def test_old_errors_go_and_each_project_has_its_own_age(
    store: Store, org: str, project: Project, session: str, clock: ManualClock
) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")
    await store.put_project_settings(other.id, ProjectSettings(retention_days=3))
    await make_sessions(store, other, "of the other")
    await fill(store, project, session, clock, range(10))
    await fill(store, other, "of the other", clock, range(10))
    nothing = await store.apply_retention(default_days=0, default_errors=0, batch=1)
    assert nothing == RetentionDone(deleted_errors=1, deleted_sessions=0, deleted_dead_letters=0, more=True)
    done = await store.apply_retention(default_days=7, default_errors=0)
    assert done == RetentionDone(deleted_errors=7, deleted_sessions=0, deleted_dead_letters=0, more=False)
    assert await kept(store, project) == ["0", "1", "2", "3", "4", "5", "6", "7"]
    assert await kept(store, other) == ["0", "1", "2", "3"]


async def test_a_project_keeps_so_many_errors_the_newest(
    store: Store, org: str, project: Project, session: str, clock: ManualClock
) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")
    await store.put_project_settings(other.id, ProjectSettings(retention_errors=2))
    await make_sessions(store, other, "of the other")
    await fill(store, project, session, clock, range(6))
    await fill(store, other, "of the other", clock, range(6))
    rounds = []
    while True:
        rounds.append(await store.apply_retention(default_days=0, default_errors=5, batch=3))
        if not rounds[-1].more:
            break
    assert [done.deleted_errors for done in rounds] == [4, 1]
    assert await kept(store, project) == ["0", "1", "2", "3", "4"]
    assert await kept(store, other) == ["0", "1"]


async def test_many_errors_are_counted_in_short_steps(
    store: Store, project: Project, session: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_STRIDE", 3)
    await fill(store, project, session, clock, range(12))
    for keep, left in ((12, 12), (7, 7), (6, 6), (1, 1)):
        await store.apply_retention(default_days=0, default_errors=keep)
        assert await kept(store, project) == [str(age) for age in range(left)]


async def test_a_project_with_more_than_one_step_of_everything_is_deleted(
    store: Store, org: str, project: Project, session: str, clock: ManualClock
) -> None:
    await make_sessions(store, project, *(f"s{n}" for n in range(5)))
    await store.commit_batch([sample_error(session, project.id) for _ in range(5001)], [])
    assert await store.delete_project(project.id, org_id=org)
    assert await store.get_session("s1") is None
    assert list((await store.project_errors(project.id, limit=1, cursor=None)).errors) == []


async def test_what_ended_long_ago_goes_and_what_goes_on_stays(
    store: Store, project: Project, clock: ManualClock
) -> None:
    await make_sessions(store, project, "ended", "goes on", "waits")
    over = SessionEndedItem(
        session_id="ended",
        project_id=project.id,
        end_reason="client",
        failed=False,
        ended_at=clock.wire_time(),
    )
    at = clock.wire_time()
    await store.commit_batch([over, suppressed(project.id, "old", at=at)], [(b"old", "poison")])
    clock.advance(5 * 86400)
    await store.commit_batch([suppressed(project.id, "new", at=clock.wire_time())], [(b"new", "poison")])
    done = await store.apply_retention(default_days=4, default_errors=0)
    assert done == RetentionDone(deleted_errors=0, deleted_sessions=1, deleted_dead_letters=1, more=False)
    assert [record.id for record in await store.unfinished_sessions()] == ["goes on", "waits"]
    assert await store.get_session("ended") is None
    assert [letter.data for letter in await store.dead_letters()] == [b"new"]
    assert [row.first_at for row in await store.suppressed_errors(project.id)] == [clock.wire_time()]


async def test_retention_by_several_at_once_deletes_nothing_too_much(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    await fill(store, project, session, clock, range(20))
    done = await asyncio.gather(
        *(store.apply_retention(default_days=0, default_errors=8, batch=5) for _ in range(6))
    )
    assert sum(part.deleted_errors for part in done) <= 12
    while (await store.apply_retention(default_days=0, default_errors=8)).more:
        pass
    assert await kept(store, project) == [str(age) for age in range(8)]
    with pytest.raises(ValueError, match="batch of at least 1"):
        await store.apply_retention(default_days=0, default_errors=0, batch=0)
