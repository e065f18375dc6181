"""What the doctor thinks of a Redis and a PostgreSQL, whatever they say of themselves."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from voicethere.adapters.queue.redis_condition import QueueState, RedisSettings
from voicethere.cli.doctor import engines, postgresql_engine, redis_engine, shown
from voicethere.cli.doctor.findings import Checked, Level, run_checks

GOOD = RedisSettings(
    version="7.0.15",
    role="master",
    appendonly="yes",
    appendfsync="always",
    maxmemory_policy="noeviction",
    maxmemory_bytes=0,
    used_bytes=2_000_000,
)
SETTINGS = {
    "server_version": "15.14 (Debian 15.14-0+deb12u1)",
    "server_encoding": "UTF8",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}


def redis(**changes: Any) -> RedisSettings:
    return msgspec.structs.replace(GOOD, **changes)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, Level.OK),
        ({"version": "6.2.0"}, Level.OK),
        ({"version": "6.0.16"}, Level.FAILED),
        ({"version": "10.1"}, Level.OK),
        ({"role": "slave"}, Level.FAILED),
    ],
)
def test_which_redis_will_do(changes: dict[str, Any], level: Level) -> None:
    assert redis_engine.judge_server(redis(**changes), milliseconds=1.0).level is level


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, Level.OK, "survives the machine"),
        ({"appendfsync": "everysec"}, Level.WARNING, "the last second (two at most) is lost"),
        ({"appendfsync": "no"}, Level.WARNING, "some 30 s"),
        ({"appendonly": "no"}, Level.WARNING, "all errors and ends of sessions that wait"),
        ({"appendonly": None, "appendfsync": None}, Level.WARNING, "does not say"),
        ({"appendfsync": None}, Level.WARNING, "how often it syncs"),
    ],
)
def test_what_a_redis_may_lose_is_said_exactly(changes: dict[str, Any], level: Level, words: str) -> None:
    finding = redis_engine.judge_durability(redis(**changes))
    assert finding.level is level
    assert words in finding.found
    assert bool(finding.todo) is (level is not Level.OK)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, Level.OK),
        ({"maxmemory_policy": "allkeys-lru"}, Level.FAILED),
        ({"maxmemory_policy": None}, Level.FAILED),
        ({"maxmemory_bytes": 2_100_000}, Level.WARNING),
        ({"maxmemory_bytes": 100_000_000}, Level.OK),
    ],
)
def test_a_redis_that_would_throw_things_away_or_is_almost_full(
    changes: dict[str, Any], level: Level
) -> None:
    assert redis_engine.judge_memory(redis(**changes)).level is level


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        (QueueState(waiting=0, given=0, idle_seconds=None, workers=0), Level.OK, "0 wait"),
        (QueueState(waiting=1200, given=500, idle_seconds=0.2, workers=2), Level.OK, "1,200 wait"),
        (QueueState(waiting=3, given=0, idle_seconds=None, workers=0), Level.WARNING, "3 wait"),
        (QueueState(waiting=3, given=3, idle_seconds=900.0, workers=1), Level.WARNING, "for 900 s"),
        (QueueState(waiting=200_000, given=1, idle_seconds=1.0, workers=1), Level.WARNING, "200,000 wait"),
    ],
)
def test_what_waits_in_the_queue(state: QueueState, level: Level, words: str) -> None:
    finding = redis_engine.judge_queue(state)
    assert finding.level is level
    assert words in finding.found


def postgresql(*, recovering: bool = False, **changes: str) -> postgresql_engine.PostgresqlState:
    return postgresql_engine.PostgresqlState(
        settings=SETTINGS | changes, recovering=recovering, step=None, milliseconds=1.0
    )


def test_which_postgresql_will_do() -> None:
    assert postgresql_engine.judge_server(postgresql()).level is Level.OK
    assert postgresql_engine.judge_server(postgresql(server_version="17beta1")).level is Level.OK
    assert postgresql_engine.judge_server(postgresql(server_version="12.4")).level is Level.FAILED
    assert postgresql_engine.judge_server(postgresql(server_encoding="LATIN1")).level is Level.FAILED
    assert postgresql_engine.judge_server(postgresql(recovering=True)).level is Level.FAILED


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fsync": "off"}, "any part of the database"),
        ({"synchronous_commit": "off"}, "under a second"),
        ({"full_page_writes": "off"}, "half-written pages"),
    ],
)
def test_what_a_postgresql_may_lose_is_said_exactly(changes: dict[str, str], words: str) -> None:
    finding = postgresql_engine.judge_durability(SETTINGS | changes)
    assert finding.level is Level.WARNING
    assert words in finding.found


def test_a_committing_postgresql_is_fine() -> None:
    assert postgresql_engine.judge_durability(SETTINGS).level is Level.OK
    remote = postgresql_engine.judge_durability(SETTINGS | {"synchronous_commit": "remote_apply"})
    assert remote.level is Level.OK


def test_how_far_a_schema_is() -> None:
    newest = postgresql_engine.newest_step()
    assert newest
    assert postgresql_engine.judge_schema(newest, newest=newest).level is Level.OK
    assert postgresql_engine.judge_schema(None, newest=newest).level is Level.OK
    assert postgresql_engine.judge_schema("0000", newest=newest).level is Level.WARNING


async def test_engines_that_are_away_are_failures_that_repeat_no_password() -> None:
    asked = engines.checks("redis://u:s3cret@127.0.0.1:1/0", "postgresql://u:s3cret@127.0.0.1:1/db")
    lines = [line async for line in run_checks(asked)]
    assert [line.level for line in lines] == [Level.FAILED] * 7
    assert "s3cret" not in repr(lines)
    assert all("--redis-url" in line.todo or "--database-url" in line.todo for line in lines)


@pytest.mark.parametrize(
    ("redis_url", "database_url"),
    [("http://:s3cret@h", "mysql://u:s3cret@h/d"), ("redis://:s3c/ret@h", "postgresql://u:p@h:s3cret/d")],
)
async def test_urls_that_are_none_repeat_no_password_either(redis_url: str, database_url: str) -> None:
    lines = [line async for line in run_checks(engines.checks(redis_url, database_url))]
    assert [line.level for line in lines] == [Level.FAILED] * 7
    assert "s3c" not in repr(lines)


def test_one_machine_needs_none_of_it() -> None:
    assert engines.checks(None, None) == []
    assert engines.checks(None, "sqlite:///data/voicethere.db") == []


def test_engines_that_fail_do_not_say_that_up_does_not_work() -> None:
    lines = [Checked(name="redis queue", level=Level.FAILED, found="", todo="", seconds=0.0)]
    assert "voicethere serve" in shown.summary(lines)
    assert "voicethere up" not in shown.summary(lines)
