"""What comes off the queue becomes rows, on every database that the store supports."""

from __future__ import annotations

import asyncio

import msgspec

from tests.contract.store.rows import ended, suppressed
from voicethere.adapters.store import CommittedBatch, Store, Suppression
from voicethere.errors.times import iso_from_epoch
from voicethere.testing.clock import ManualClock
from voicethere.testing.queue import sample_error
from voicethere.wire.control_plane import Project
from voicethere.wire.queue import ErrorItem, QueueItem
from voicethere.wire.session_api import ProvisioningStatus


async def test_an_error_becomes_exactly_one_row(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    item = sample_error(session, project.id, occurred_at=iso_from_epoch(clock.now() - 1.5))
    first = await store.commit_batch([item, item], [])
    assert first == CommittedBatch(inserted=1, duplicates=1, dead=0, ended=0)
    assert await store.commit_batch([item], []) == CommittedBatch(inserted=0, duplicates=1, dead=0, ended=0)
    (row,) = (await store.project_errors(project.id, limit=20, cursor=None)).errors
    record = item.record
    assert msgspec.to_builtins(row) == {
        "id": record.id,
        "orchestrator_session_id": session,
        "source": "agent",
        "code": "AGENT_HANDLER_FAILED",
        "message": record.message,
        "stack_trace": record.stack,
        "created_at": clock.wire_time(),
        "client_message": record.client_message,
        "build_id": None,
        "recoverable": False,
        "customer_context": {"userId": "u_123"},
        "occurred_at": record.occurred_at,
        "details": {"hook": "on_user_speech_final"},
    }


async def test_the_first_end_of_a_session_wins_and_no_step_follows(
    store: Store, project: Project, session: str
) -> None:
    first = await store.commit_batch([ended(session, project.id, failed=True, reason="agent_failed")], [])
    again = await store.commit_batch([ended(session, project.id, reason="client_disconnected")], [])
    assert (first.ended, again.ended) == (1, 0)
    record = await store.get_session(session)
    assert record is not None
    assert (record.end_reason, record.failed) == ("agent_failed", True)
    assert record.ended_at == "2026-06-19T12:00:00.000Z"
    assert await store.update_session(session, status=ProvisioningStatus.READY) == record
    row = await store.get_session_row(project.id, session)
    assert row is not None
    assert (row.status, row.ended_at, row.end_reason) == ("failed", record.ended_at, "agent_failed")


async def test_a_session_that_ended_well_is_ended(store: Store, project: Project, session: str) -> None:
    row = await store.get_session_row(project.id, session)
    assert row is not None
    assert (row.status, row.ended_at) == ("active", None)
    await store.commit_batch([ended(session, project.id)], [])
    (row,) = await store.list_sessions(project.id, start=None, end=None, limit=1)
    assert (row.status, row.end_reason) == ("ended", "client")


async def test_what_belongs_nowhere_is_buried_and_takes_no_neighbour_along(
    store: Store, org: str, project: Project, session: str
) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")
    items = [
        sample_error("nope", project.id),
        sample_error(session, project.id),
        sample_error(session, other.id),
        ended("nope", project.id),
        ended(session, project.id),
    ]
    committed = await store.commit_batch(items, [(b"\xff" * 100_000, "not an item: " + "x" * 5000)])
    assert committed == CommittedBatch(inserted=1, duplicates=0, dead=4, ended=1)
    letters = await store.dead_letters()
    assert [letter.problem[:60] for letter in letters] == [
        "there is no session 'nope' (it, or its project, may be delet",
        f"the session 'session-1' is not of the project '{other.id}'"[:60],
        "there is no session 'nope' (it, or its project, may be delet",
        ("not an item: " + "x" * 60)[:60],
    ]
    assert (len(letters[3].data), letters[3].size_bytes) == (64 * 1024, 100_000)
    assert len(letters[3].problem) == 1000
    assert msgspec.json.decode(letters[2].data, type=ErrorItem) == items[0]
    again = await store.commit_batch(items, [(b"\xff" * 100_000, "not an item")])
    assert again == CommittedBatch(inserted=0, duplicates=1, dead=0, ended=0)
    assert len(await store.dead_letters()) == 4


async def test_a_row_that_the_database_refuses_does_not_lose_the_others(
    store: Store, project: Project, session: str
) -> None:
    good = [sample_error(session, project.id) for _ in range(3)]
    # No message that was decoded can be like this, but a caller in the same process could make one.
    bad = sample_error(session, project.id, message=5 + 2**70)
    committed = await store.commit_batch([good[0], bad, *good[1:]], [])
    assert committed == CommittedBatch(inserted=3, duplicates=0, dead=1, ended=0)
    (letter,) = await store.dead_letters()
    assert letter.problem.startswith("the database refuses this")


async def test_clocks_that_are_wrong_are_clamped_and_the_report_is_kept(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    now = clock.now()
    reported = {
        "ahead": iso_from_epoch(now + 3600),
        "ancient": "0001-01-01T00:00:00.000+23:59",
        "behind": iso_from_epoch(now - 90 * 86400),
        "fine": iso_from_epoch(now - 5),
        "junk": "a quarter past",
    }
    await store.commit_batch(
        [sample_error(session, project.id, id=name, occurred_at=time) for name, time in reported.items()], []
    )
    page = await store.project_errors(project.id, limit=20, cursor=None)
    rows = {row.id: row for row in page.errors}
    assert [row.id for row in page.errors][:3] == ["ahead", "junk", "ancient"]
    assert rows["ahead"].occurred_at == iso_from_epoch(now + 60)
    assert rows["behind"].occurred_at == iso_from_epoch(now - 30 * 86400)
    assert rows["fine"].occurred_at == reported["fine"]
    assert rows["junk"].occurred_at == rows["ancient"].occurred_at == iso_from_epoch(now)
    assert rows["ahead"].details["reported_occurred_at"] == reported["ahead"]
    assert "reported_occurred_at" not in rows["fine"].details
    assert all(row.created_at == clock.wire_time() for row in page.errors)


async def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert await store.commit_batch([], []) == CommittedBatch(inserted=0, duplicates=0, dead=0, ended=0)


async def test_a_big_batch_is_one_batch(store: Store, project: Project, session: str) -> None:
    items = [sample_error(session, project.id) for _ in range(1200)]
    items += [sample_error(f"unknown-{number}", project.id) for number in range(1200)]
    committed = await store.commit_batch(items, [])
    assert committed == CommittedBatch(inserted=1200, duplicates=0, dead=1200, ended=0)


async def test_suppressed_errors_are_counted_once(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    old, new = iso_from_epoch(clock.now() - 9), clock.wire_time()
    items: list[QueueItem] = [
        suppressed(project.id, "z", at=old),
        sample_error(session, project.id),
        suppressed(project.id, "a", count=3, at=new),
        suppressed("nope", "b", at=new),
        suppressed(project.id, "c", count=0, at=new),
    ]
    committed = await store.commit_batch(items, [])
    assert committed == CommittedBatch(inserted=1, duplicates=0, dead=2, ended=0, suppressed=2)
    again = await store.commit_batch(items, [])
    assert again == CommittedBatch(inserted=0, duplicates=1, dead=0, ended=0)
    assert list(await store.suppressed_errors(project.id)) == [
        Suppression(code="AGENT_HANDLER_FAILED", count=3, first_at=new, last_at=new),
        Suppression(code="AGENT_HANDLER_FAILED", count=7, first_at=old, last_at=old),
    ]
    assert len(await store.suppressed_errors(project.id, limit=1)) == 1
    assert [letter.problem for letter in await store.dead_letters()] == [
        "a count of suppressed errors is from 1 to 9007199254740992",
        "there is no project 'nope' (it may be deleted)",
    ]


async def test_a_letter_that_is_set_aside_may_be_buried_anew_beside_it(store: Store) -> None:
    """So that whoever replays it can delete it afterwards, and not what failed again meanwhile."""
    await store.commit_batch([], [(b"junk", "first time")])
    (letter,) = await store.dead_letters()
    assert not await store.delete_dead_letter(letter.number, only_set_aside=True)
    assert await store.set_dead_letter_aside(letter.number)
    assert await store.set_dead_letter_aside(letter.number)
    assert not await store.set_dead_letter_aside(letter.number + 1)
    kept = await store.get_dead_letter(letter.number)
    assert kept is not None
    assert (kept.data, kept.problem) == (b"junk", "first time")
    assert (await store.commit_batch([], [(b"junk", "second time")])).dead == 1
    assert await store.delete_dead_letter(letter.number, only_set_aside=True)
    (again,) = await store.dead_letters()
    assert (again.data, again.problem) == (b"junk", "second time")


async def test_dead_letters_are_numbered_and_can_be_taken_out(store: Store) -> None:
    assert await store.count_dead_letters() == 0
    await store.commit_batch([], [(f"{n}".encode(), "poison") for n in range(4)] + [(b"x" * 70_000, "big")])
    letters = await store.dead_letters(limit=2)
    assert [(letter.data[:1], letter.truncated) for letter in letters] == [(b"x", True), (b"3", False)]
    older = await store.dead_letters(before=letters[-1].number)
    assert [letter.data for letter in older] == [b"2", b"1", b"0"]
    assert await store.get_dead_letter(older[0].number) == older[0]
    assert await store.delete_dead_letter(older[0].number)
    assert not await store.delete_dead_letter(older[0].number)
    assert await store.get_dead_letter(older[0].number) is None
    assert await store.count_dead_letters() == 4


async def test_the_same_batch_at_once_is_stored_once(store: Store, project: Project, session: str) -> None:
    items: list[QueueItem] = [sample_error(session, project.id) for _ in range(300)]
    items += [ended(session, project.id), suppressed(project.id, "s", at="2026-06-19T12:00:00.000Z")]
    done = await asyncio.gather(
        *(store.commit_batch(items if n % 2 else items[::-1], [(b"x", "poison")]) for n in range(6))
    )
    totals = [sum(values) for values in zip(*(msgspec.structs.astuple(part) for part in done), strict=True)]
    assert totals == [300, 1500, 1, 1, 1]
