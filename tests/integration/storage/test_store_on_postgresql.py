"""What the store does when its PostgreSQL server dies, hangs, cuts connections, or has others at work."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, make_url, text, update

from voicethere.adapters.store import CommittedBatch, Store, StoreUnavailable, tables
from voicethere.adapters.store.database import open_database
from voicethere.testing.postgres_server import PostgresServer, postgres_server
from voicethere.testing.queue import sample_error
from voicethere.wire.control_plane import Project
from voicethere.wire.queue import ErrorItem
from voicethere.wire.session_api import ProvisioningStatus

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with asyncio.Runner() as runner:
        # Deadlocks are looked for early, so that the test of them is quick.
        manager = postgres_server(durable=True, settings=["deadlock_timeout = 50ms"])
        server = runner.run(manager.__aenter__())
        try:
            yield server
        finally:
            runner.run(manager.__aexit__(None, None, None))


@pytest.fixture
async def url(server: PostgresServer) -> str:
    name = f"t{uuid.uuid4().hex}"
    await server.execute(f"CREATE DATABASE {name}")
    return server.url_of(name)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = await Store.open(url)
    yield store
    await store.aclose()


@pytest.fixture
async def project(store: Store) -> Project:
    project = await store.create_project(org_id=await store.ensure_default_org(), name="P", slug="p")
    await make_session(store, project, "s")
    return project


async def make_session(store: Store, project: Project, name: str) -> None:
    await store.create_session(
        session_id=name, project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
    )


async def stored(store: Store, project: Project) -> set[str]:
    found: set[str] = set()
    cursor = None
    while True:
        page = await store.project_errors(project.id, limit=100, cursor=cursor)
        found |= {row.id for row in page.errors}
        cursor = page.next_cursor
        if cursor is None:
            return found


def engine_of(url: str) -> Engine:
    return create_engine(make_url(url).set(drivername="postgresql+psycopg"))


# ------------------------------------------------------------------ servers that fail


async def test_what_was_acknowledged_outlives_the_server_and_the_store_recovers(
    server: PostgresServer, store: Store, project: Project
) -> None:
    acknowledged: set[str] = set()
    refused: list[list[ErrorItem]] = []
    enough = asyncio.Event()

    async def work() -> None:
        while not refused:
            items = [sample_error("s", project.id, stack="x" * 2000) for _ in range(50)]
            try:
                await store.commit_batch(items, [])
            except StoreUnavailable:
                refused.append(items)
            else:
                acknowledged.update(item.record.id for item in items)
            if len(acknowledged) >= 1000:
                enough.set()

    await server.execute("CHECKPOINT")  # what it repeats when it starts is what is stored from now on
    working = [asyncio.create_task(work()) for _ in range(3)]
    async with asyncio.timeout(60):
        await enough.wait()
        await server.kill()
        await asyncio.gather(*working)
    with pytest.raises(StoreUnavailable, match="cannot be used now") as caught:
        await store.ping()
    assert "postgresql://" not in str(caught.value)
    await server.start()
    await store.ping()
    assert acknowledged <= await stored(store, project)
    for items in refused:  # one of them may have been committed, and nobody could say so any more
        await store.commit_batch(items, [])
    everything = acknowledged | {item.record.id for items in refused for item in items}
    assert everything <= await stored(store, project)


async def test_a_server_that_hangs_is_unavailable_and_comes_back(
    server: PostgresServer, url: str, project: Project
) -> None:
    impatient = await Store.open(url, answer_seconds=2.0)
    calls = [
        impatient.ping,
        impatient.ensure_default_org,
        lambda: impatient.commit_batch([sample_error("s", project.id)], []),
    ]
    await asyncio.gather(*(call() for call in calls))  # connections that were good
    server.pause()
    try:
        async with asyncio.timeout(30):
            results = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    finally:
        server.resume()
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert "has not answered for 2 seconds" in str(results[0])
    await asyncio.gather(*(call() for call in calls))
    await impatient.aclose()


async def test_connections_that_were_cut_are_made_again_unnoticed(
    server: PostgresServer, store: Store, project: Project
) -> None:
    for _ in range(2):
        await asyncio.gather(*(store.ping() for _ in range(6)), store.session_seen("s"))
        cut = await server.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'voicethere'"
        )
        assert int(cut) > 1
        results = await asyncio.gather(*(store.ping() for _ in range(6)), store.session_seen("s"))
        assert results == [None] * 7


async def test_a_lock_that_is_held_too_long_makes_the_store_unavailable(
    url: str, store: Store, project: Project
) -> None:
    impatient = await Store.open(url, busy_seconds=0.05)
    with closing(psycopg.connect(url)) as holder:
        holder.execute("LOCK TABLE sessions")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await impatient.session_joined("s")
        holder.rollback()  # a connection that is closed lets go of its locks some time later
    await impatient.session_joined("s")
    await impatient.aclose()


async def test_a_server_that_is_not_there_is_named_without_the_password(server: PostgresServer) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be used now") as caught:
        await Store.open("postgresql://someone:p4ssw0rd@127.0.0.1:1/nowhere")
    assert "p4ssw0rd" not in str(caught.value)
    with pytest.raises(StoreUnavailable, match='database "nowhere" does not exist'):
        await Store.open(server.url_of("nowhere"))


async def test_a_database_in_another_encoding_is_refused(server: PostgresServer) -> None:
    await server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StoreUnavailable, match="encoded as LATIN1: make one with CREATE DATABASE"):
        await Store.open(server.url_of("latin"))


def test_without_the_driver_the_remedy_is_named() -> None:
    program = (
        "import asyncio, sys; sys.modules['psycopg'] = None\n"
        "from voicethere.adapters.store import Store\n"
        "try: asyncio.run(Store.open('postgresql://h/d'))\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    expected = "PostgreSQL needs the driver psycopg: pip install 'voicethere[server,postgres]'\n"
    assert (done.stdout, done.stderr) == (expected, "")


# ------------------------------------------------------------------ several at work


async def test_an_error_that_another_worker_is_storing_is_stored_once(
    url: str, store: Store, project: Project
) -> None:
    patient = await Store.open(url)
    items = [sample_error("s", project.id, id=f"{number:03}") for number in range(100)]
    with closing(psycopg.connect(url)) as other, closing(psycopg.connect(url, autocommit=True)) as watcher:
        other.execute(
            "INSERT INTO session_errors VALUES ('050', %s, 's', NULL, 'agent', 'AGENT_CRASHED', 'm', NULL,"
            " NULL, false, NULL, '{}', 0, 0)",
            [project.id],
        )
        committing = asyncio.create_task(patient.commit_batch([*items], []))
        async with asyncio.timeout(10):
            query = "SELECT 1 FROM pg_locks WHERE NOT granted"
            while watcher.execute(query).fetchone() is None:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.005)
        other.commit()
    assert await committing == CommittedBatch(inserted=99, duplicates=1, dead=0, ended=0)
    assert len(await stored(store, project)) == 100
    await patient.aclose()


async def test_two_workers_that_get_the_same_batches_store_each_error_once(
    url: str, store: Store, project: Project
) -> None:
    another = await Store.open(url)
    batches = [[sample_error("s", project.id) for _ in range(100)] for _ in range(10)]

    async def work(mine: Store, order: list[list[ErrorItem]]) -> int:
        return sum([(await mine.commit_batch(batch, [])).inserted for batch in order])

    counts = await asyncio.gather(
        work(store, batches), work(another, [batch[::-1] for batch in batches]), work(another, batches[::-1])
    )
    assert sum(counts) == 1000 == len(await stored(store, project))
    await another.aclose()


async def test_transactions_that_block_each_other_are_run_again(
    url: str, store: Store, project: Project
) -> None:
    await make_session(store, project, "t")
    database = await open_database(url, busy_seconds=5, answer_seconds=5)
    runs: list[str] = []

    def crossing(first: str, second: str) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            runs.append(first)
            for name in (first, second):
                mine = tables.sessions.c.id == name
                connection.execute(update(tables.sessions).where(mine).values(runner_id=first))
                if len(runs) < 2:  # hold one until the other work has one, too
                    waiting = "SELECT pg_sleep(0.01)"
                    while len(runs) < 2:
                        connection.execute(text(waiting))

        return work

    async with asyncio.timeout(20):
        await asyncio.gather(database.write(crossing("s", "t")), database.write(crossing("t", "s")))
    assert len(runs) >= 2
    await database.aclose()


async def test_places_never_rise_while_many_services_make_sessions(
    url: str, store: Store, project: Project
) -> None:
    others = [await Store.open(url) for _ in range(2)]
    seen: dict[str, int] = {}

    async def create(mine: Store, names: list[str]) -> None:
        for name in names:
            await make_session(mine, project, name)
            await mine.update_session(name, status=ProvisioningStatus.WAITING)
            place = await mine.waiting_place(name)
            assert place is not None
            seen[name] = place.position

    await asyncio.gather(
        *(
            create(mine, [f"{index}{letter}{n}" for n in range(10)])
            for index, mine in enumerate(others)
            for letter in "abc"
        )
    )
    for name, position in seen.items():
        place = await store.waiting_place(name)
        assert place is not None
        assert place.position == position
    assert sorted(seen.values()) == list(range(2, 62))
    for other in others:
        await other.aclose()


async def test_a_platform_secret_is_the_same_for_all(url: str, store: Store) -> None:
    stores = [store, *[await Store.open(url) for _ in range(2)]]
    secrets = await asyncio.gather(
        *(one.platform_secret("k", lambda: uuid.uuid4().bytes) for one in stores for _ in range(4))
    )
    assert len(set(secrets)) == 1
    for other in stores[1:]:
        await other.aclose()


# ------------------------------------------------------------------ the schema


async def test_processes_that_open_an_empty_database_at_once_agree(
    server: PostgresServer, url: str, tmp_path: Path, start: Start
) -> None:
    signal = tmp_path / "go"
    children = [start("open_store", url, signal) for _ in range(3)]
    for child in children:
        assert child.stdout is not None
        assert await asyncio.to_thread(child.stdout.readline) == "ready\n"
    signal.touch()
    outputs = await asyncio.gather(*(asyncio.to_thread(child.communicate, None, 60) for child in children))
    assert [child.returncode for child in children] == [0] * 3
    assert len({output for output, _ in outputs}) == 1
    database = str(make_url(url).database)
    assert await server.execute("SELECT count(*) FROM orgs", database=database) == "1"


async def test_the_migrated_schema_is_the_described_one_here_too(
    server: PostgresServer, url: str, store: Store
) -> None:
    await server.execute("CREATE DATABASE described")
    described = engine_of(server.url_of("described"))
    tables.metadata.create_all(described)
    described.dispose()
    migrated = engine_of(url)
    with migrated.connect() as connection:
        # Types are compared below: the text of this package looks like another type to Alembic.
        options = {"compare_server_default": True, "compare_type": False}
        difference = compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)
    migrated.dispose()
    assert difference == []
    for query in (
        "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
        "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default"
        " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
    ):
        here, there = [
            [line for line in found.splitlines() if not line.startswith("alembic_version")]
            for found in (
                await server.execute(query, database=str(make_url(url).database)),
                await server.execute(query, database="described"),
            )
        ]
        assert here == there
        assert len(here) > 10


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (
            "SELECT * FROM session_errors WHERE project_id = 'p' AND (occurred_at_ms, id) < (1, 'x')"
            " ORDER BY occurred_at_ms DESC, id DESC LIMIT 21",
            "ix_session_errors_project_newest",
        ),
        (
            "SELECT * FROM session_errors WHERE project_id = 'p' AND session_id = 's'"
            " AND (occurred_at_ms, id) > (1, 'x') ORDER BY occurred_at_ms, id LIMIT 21",
            "ix_session_errors_session_oldest",
        ),
        (f"SELECT count(*) FROM sessions WHERE {tables.LINE} AND number < 5", "ix_sessions_line"),
        (f"SELECT * FROM deployments WHERE {tables.ACTIVE} ORDER BY number", "ix_deployments_active"),
        (
            "SELECT id FROM session_errors WHERE project_id = 'p' AND occurred_at_ms < 5"
            " ORDER BY occurred_at_ms, id LIMIT 5",
            "ix_session_errors_project_newest",
        ),
    ],
)
async def test_an_index_answers_without_sorting(
    server: PostgresServer, url: str, store: Store, query: str, index: str
) -> None:
    # Small tables are read whole unless that is forbidden.
    plan = await server.execute(
        f"SET enable_seqscan = off; SET enable_bitmapscan = off; EXPLAIN {query}",
        database=str(make_url(url).database),
    )
    assert index in plan
    assert "Sort" not in plan


async def test_dead_connections_do_not_keep_a_store_from_closing(server: PostgresServer, url: str) -> None:
    store = await Store.open(url)
    await store.ping()
    await server.execute("CHECKPOINT")  # else it repeats all tests before this one when it starts
    await server.kill()
    try:
        async with asyncio.timeout(20):
            await store.aclose()
    finally:
        await server.start()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.ping()
