"""What storing a batch costs PostgreSQL, as its own statistics tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from voicethere.adapters.store import Store
from voicethere.testing.postgres_server import PostgresServer, postgres_server
from voicethere.testing.queue import sample_error

ERRORS = 5_000


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    # As a table is that grew faster than the server looked at it.
    async with postgres_server(settings=["autovacuum = off"]) as server:
        yield server


async def connections(server: PostgresServer) -> set[str]:
    """The processes that serve stores."""
    found = await server.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'voicethere'")
    return set(found.split())


async def only(server: PostgresServer, kept: set[str]) -> None:
    """Once no others are left: a process that ends, a while after its connection, tells what it has read."""
    async with asyncio.timeout(20):
        while not await connections(server) <= kept:
            pass


async def test_a_batch_does_not_read_the_whole_of_a_table_that_grew_unnoticed(server: PostgresServer) -> None:
    """A plan that is made while a table is small, and kept, would."""
    store = await Store.open(server.url)
    project = await store.create_project(org_id=await store.ensure_default_org(), name="P", slug="p")

    async def store_batches(store: Store, count: int, *, of: int) -> None:
        for _ in range(count):
            await store.commit_batch([sample_error("s", project.id) for _ in range(of)], [])

    await store.create_session(
        session_id="s", project_id=project.id, build_id=None, customer_context=None, idempotency_key=None
    )
    await store_batches(store, 30, of=2)  # more than it takes until driver and server keep a plan
    kept = await connections(server)
    other = await Store.open(server.url)
    await store_batches(other, ERRORS // 500, of=500)
    await other.aclose()
    await only(server, kept)
    await server.execute("SELECT pg_stat_reset()")
    await store_batches(store, 20, of=2)
    await store.aclose()
    await only(server, set())
    read = await server.execute(
        "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'session_errors'"
    )
    # Not even once. (While it was one page, it was read as a whole: a few rows.)
    assert int(read) < ERRORS
