"""What the doctor finds on a real Redis and a real PostgreSQL."""

from __future__ import annotations

from redis.asyncio import Redis

from voicethere.adapters.queue import RedisErrorQueue
from voicethere.adapters.store import Store
from voicethere.cli.doctor import engines
from voicethere.cli.doctor.findings import Checked, Level, run_checks
from voicethere.testing.postgres_server import postgres_server
from voicethere.testing.queue import sample_error
from voicethere.testing.redis_server import redis_server


async def report(redis_url: str | None, database_url: str | None) -> dict[str, Checked]:
    lines = [line async for line in run_checks(engines.checks(redis_url, database_url))]
    return {line.name: line for line in lines}


async def test_a_redis_as_it_should_be_and_what_waits_in_it() -> None:
    async with redis_server(appendonly=True, appendfsync="always", password="s3cret") as redis:
        empty = await report(redis.url, None)
        assert [line.level for line in empty.values()] == [Level.OK] * 4
        queue = RedisErrorQueue(redis.url)
        await queue.put([sample_error() for _ in range(3)])
        nobody = (await report(redis.url, None))["redis queue"]
        assert nobody.level is Level.WARNING
        assert "voicethere serve worker" in nobody.todo
        await queue.receive(limit=2, wait_seconds=0)
        working = (await report(redis.url, None))["redis queue"]
        assert working.level is Level.OK
        assert "3 wait to be stored, 2 of them at one of 1 workers" in working.found
        assert "s3cret" not in repr([empty, nobody, working])
        assert await queue.depth() == 3
        await queue.aclose()


async def test_a_redis_that_promises_little() -> None:
    async with redis_server(
        appendonly=True, appendfsync="everysec", options={"maxmemory-policy": "allkeys-lru"}
    ) as redis:
        found = await report(redis.url, None)
        assert found["redis durability"].level is Level.WARNING
        assert "everysec" in found["redis durability"].found
        assert found["redis memory"].level is Level.FAILED


async def test_a_redis_that_does_not_tell_its_settings() -> None:
    async with redis_server() as redis:
        async with Redis.from_url(redis.url) as admin:
            await admin.execute_command("ACL", "SETUSER", "guest", "on", ">s3cret", "~*", "+@all", "-config")
        found = await report(redis.url.replace("redis://", "redis://guest:s3cret@"), None)
        assert found["redis"].level is Level.OK
        assert found["redis durability"].level is Level.WARNING
        assert found["redis memory"].level is Level.OK  # INFO tells the policy


async def test_a_postgresql_before_and_after_it_was_migrated() -> None:
    async with postgres_server() as server:
        before = await report(None, server.url)
        assert before["postgresql"].level is Level.OK
        # The test's server does not sync, and that is what the doctor is there to see.
        assert before["postgresql durability"].level is Level.WARNING
        assert "no schema yet" in before["postgresql schema"].found
        store = await Store.open(server.url)
        await store.aclose()
        assert "the newest" in (await report(None, server.url))["postgresql schema"].found
