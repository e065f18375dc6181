"""Sessions from the request to the line and the list, on every database that the store supports."""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.store.rows import ended, make_sessions
from voicethere.adapters.store import Store, StoreConflict, WaitingPlace
from voicethere.testing.clock import ManualClock
from voicethere.wire.control_plane import Project
from voicethere.wire.session_api import FailureCode, Mode, ProvisioningStatus


async def test_a_session_takes_its_steps_and_then_stands_still(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    created = await store.get_session(session)
    assert created is not None
    assert (created.status, created.customer_context) == (ProvisioningStatus.QUEUED, {"tier": "pro"})
    clock.advance(1)
    ready = await store.update_session(
        session, status=ProvisioningStatus.READY, build_id="b1", runner_id="runner-1"
    )
    assert ready is not None
    assert (ready.status, ready.build_id, ready.runner_id) == (ProvisioningStatus.READY, "b1", "runner-1")
    assert ready.completed_at == ready.updated_at == clock.wire_time()
    late = await store.update_session(
        session, status=ProvisioningStatus.FAILED, failure_code=FailureCode.TIMEOUT, mode=Mode.DATA
    )
    assert late == ready
    assert await store.update_session("nope", status=ProvisioningStatus.READY) is None


async def test_a_failed_session_stays_failed(
    store: Store, project: Project, session: str, clock: ManualClock
) -> None:
    failed = await store.update_session(
        session,
        status=ProvisioningStatus.FAILED,
        failure_code=FailureCode.TIMEOUT,
        failure_message="too slow",
        mode=Mode.VOICE_DATA,
    )
    assert failed is not None
    assert (failed.failure_code, failed.failure_message) == (FailureCode.TIMEOUT, "too slow")
    assert (failed.failed, failed.mode) == (True, Mode.VOICE_DATA)
    assert await store.update_session(session, status=ProvisioningStatus.READY) == failed
    row = await store.get_session_row(project.id, session)
    assert row is not None
    assert (row.status, row.ended_at) == ("failed", clock.wire_time())
    assert await store.get_session_row("another", session) is None


async def test_places_in_the_line_only_fall(store: Store, project: Project, clock: ManualClock) -> None:
    made = await make_sessions(store, project, "a", "b", "c", "d")
    assert [record.number for record in made] == sorted(record.number for record in made)
    for name in "abcd":
        assert await store.waiting_place(name) is None
        await store.update_session(name, status=ProvisioningStatus.WAITING)
    since = clock.wire_time()

    async def places() -> list[int | None]:
        found = [await store.waiting_place(name) for name in "abcd"]
        return [None if place is None else place.position for place in found]

    assert await places() == [1, 2, 3, 4]
    await store.update_session("a", status=ProvisioningStatus.PROVISIONING)
    assert await places() == [None, 2, 3, 4]
    clock.advance(3)
    await store.update_session("a", status=ProvisioningStatus.WAITING)
    assert await places() == [1, 2, 3, 4]
    again = await store.waiting_place("a")
    assert again == WaitingPlace(position=1, waiting_since=since, last_seen=since)
    await store.update_session("a", status=ProvisioningStatus.READY)
    await store.commit_batch([ended("b", project.id)], [])
    await store.update_session("c", status=ProvisioningStatus.FAILED)
    assert await places() == [None, None, None, 1]
    assert await store.waiting_place("nope") is None


async def test_who_waits_and_is_seen_no_more_expires(
    store: Store, project: Project, clock: ManualClock
) -> None:
    await make_sessions(store, project, "queued", "waits", "left", "hosted")
    for name in ("waits", "left"):
        await store.update_session(name, status=ProvisioningStatus.WAITING)
    await store.update_session("hosted", status=ProvisioningStatus.READY)
    clock.advance(10)
    for name in ("queued", "waits", "hosted", "nope"):
        await store.session_seen(name)
    place = await store.waiting_place("waits")
    assert place is not None
    assert place.last_seen == clock.wire_time() > place.waiting_since
    assert await store.expired_waiters(clock.wire_time()) == ["left"]
    clock.advance(1)
    assert await store.expired_waiters(clock.wire_time()) == ["waits", "left"]
    queued = await store.get_session("queued")
    hosted = await store.get_session("hosted")
    assert queued is not None
    assert hosted is not None
    assert (queued.last_seen, hosted.last_seen) == (place.last_seen, None)
    assert list(await store.queued_sessions()) == [queued]


async def test_sessions_that_are_not_over_are_counted_by_status(store: Store, project: Project) -> None:
    assert await store.open_sessions_by_status() == {}
    await make_sessions(store, project, "a", "b", "c", "d")
    await store.update_session("a", status=ProvisioningStatus.READY)
    await store.update_session("b", status=ProvisioningStatus.READY)
    await store.commit_batch([ended("b", project.id)], [])
    assert await store.open_sessions_by_status() == {"queued": 2, "ready": 1}


async def test_the_first_time_that_a_client_joins_is_kept(
    store: Store, session: str, clock: ManualClock
) -> None:
    joined = clock.wire_time()
    for _ in range(2):
        await store.session_joined(session)
        clock.advance(1)
    record = await store.get_session(session)
    assert record is not None
    assert record.joined_at == joined
    await store.session_joined("nope")


async def test_a_session_says_whether_it_would_wait(store: Store, project: Project, session: str) -> None:
    waits = await store.get_session(session)
    impatient = await store.create_session(
        session_id="now or never",
        project_id=project.id,
        build_id=None,
        customer_context=None,
        idempotency_key=None,
        wait_for_capacity=False,
    )
    assert waits is not None
    assert (waits.wait_for_capacity, impatient.wait_for_capacity) == (True, False)
    assert (waits.mode, waits.waiting_since, waits.last_seen, waits.joined_at) == (None,) * 4


async def test_an_idempotency_key_gives_the_same_session_within_its_project(
    store: Store, org: str, project: Project
) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")

    async def create(session_id: str, project_id: str, key: str | None) -> str:
        record = await store.create_session(
            session_id=session_id,
            project_id=project_id,
            build_id=None,
            customer_context=None,
            idempotency_key=key,
        )
        return record.id

    made = await asyncio.gather(*(create(f"s{n}", project.id, "k") for n in range(5)))
    assert len(set(made)) == 1
    assert await create("another", other.id, "k") == "another"
    with pytest.raises(StoreConflict, match="'another' is taken"):
        await create("another", project.id, None)
    with pytest.raises(StoreConflict, match="'another' is taken"):
        await create("another", project.id, "new key")
    with pytest.raises(LookupError, match="no project"):
        await create("s9", "nope", None)


async def test_a_repeated_request_is_found_before_anything_is_made(store: Store, project: Project) -> None:
    assert await store.find_repeated_session(project.id, "k") is None
    made = await store.create_session(
        session_id="s", project_id=project.id, build_id=None, customer_context=None, idempotency_key="k"
    )
    assert await store.find_repeated_session(project.id, "k") == made
    assert await store.find_repeated_session("another", "k") is None


async def test_sessions_without_an_end_are_found_oldest_first(
    store: Store, project: Project, session: str
) -> None:
    for name in ("b", "a"):
        await store.create_session(
            session_id=name, project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
        )
    await store.update_session("a", status=ProvisioningStatus.FAILED)
    await store.commit_batch([ended("b", project.id)], [])
    assert [record.id for record in await store.unfinished_sessions()] == [session, "a"]


async def test_sessions_are_listed_newest_first_within_a_window(
    store: Store, project: Project, clock: ManualClock
) -> None:
    times = []
    for number in range(4):
        times.append(clock.wire_time())
        for half in "ab":  # two of the same millisecond
            await store.create_session(
                session_id=f"{number}{half}",
                project_id=project.id,
                build_id=None,
                customer_context=None,
                idempotency_key=None,
            )
        clock.advance(1)

    async def listed(start: str | None, end: str | None, limit: int = 100) -> list[str]:
        return [row.id for row in await store.list_sessions(project.id, start=start, end=end, limit=limit)]

    assert await listed(None, None) == ["3b", "3a", "2b", "2a", "1b", "1a", "0b", "0a"]
    assert await listed(times[1], times[3]) == ["2b", "2a", "1b", "1a"]
    assert await listed(None, None, limit=3) == ["3b", "3a", "2b"]
    with pytest.raises(ValueError, match="not a time like"):
        await listed("yesterday", None)
    with pytest.raises(ValueError, match="limit must be"):
        await listed(None, None, limit=0)
