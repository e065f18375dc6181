"""A store on each database that it supports, with an org, a project and a session."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from voicethere.adapters.store import Store
from voicethere.testing.clock import ManualClock
from voicethere.testing.postgres_server import postgres_server
from voicethere.wire.control_plane import Project


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def new_database() -> Iterator[Callable[[], str]]:
    """Gives the URL of a new PostgreSQL database: a copy of one that was migrated once, on one server."""
    with asyncio.Runner() as runner:
        manager = postgres_server()
        server = runner.run(manager.__aenter__())

        async def migrate() -> None:
            await server.execute("CREATE DATABASE migrated")
            await (await Store.open(server.url_of("migrated"))).aclose()

        def copy() -> str:
            name = f"store_{uuid.uuid4().hex}"
            runner.run(server.execute(f"CREATE DATABASE {name} TEMPLATE migrated"))
            return server.url_of(name)

        try:
            runner.run(migrate())
            yield copy
        finally:
            runner.run(manager.__aexit__(None, None, None))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/voicethere.db"
    new_database: Callable[[], str] = request.getfixturevalue("new_database")
    return new_database()


@pytest.fixture
async def store(url: str, clock: ManualClock) -> AsyncIterator[Store]:
    store = await Store.open(url, clock=clock)
    yield store
    await store.aclose()


@pytest.fixture
async def org(store: Store) -> str:
    return await store.ensure_default_org()


@pytest.fixture
async def project(store: Store, org: str) -> Project:
    return await store.create_project(org_id=org, name="Pizza", slug="pizza")


@pytest.fixture
async def session(store: Store, project: Project) -> str:
    record = await store.create_session(
        session_id="session-1",
        project_id=project.id,
        build_id=None,
        customer_context={"tier": "pro"},
        idempotency_key=None,
    )
    return record.id
