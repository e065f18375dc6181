"""The checks of the engines that roles on several machines share, where their URLs are given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from voicethere.cli.doctor import postgresql_engine
from voicethere.cli.doctor.findings import Check, Finding, failed

_REPORT = "Please report this, with what `voicethere doctor --json` prints."
_SECONDS = 12.0


def checks(redis_url: str | None, database_url: str | None) -> Sequence[Check]:
    """None where neither is given. A database in a file is for the data directory's own checks."""
    found: list[Check] = []
    if redis_url:
        found += _redis(redis_url)
    if database_url and not database_url.startswith("sqlite"):
        found += _postgresql(database_url)
    return found


def _redis(url: str) -> Sequence[Check]:
    try:
        from voicethere.cli.doctor import redis_engine
    except ModuleNotFoundError as error:
        name = error.name

        async def missing() -> Finding:
            return failed(f"the package {name} is not installed", "pip install 'voicethere[server,redis]'")

        return [_check("redis", missing)]
    return [
        _check("redis", lambda: redis_engine.reachable(url)),
        _check("redis durability", lambda: redis_engine.durability(url)),
        _check("redis memory", lambda: redis_engine.memory(url)),
        _check("redis queue", lambda: redis_engine.queue(url)),
    ]


def _postgresql(url: str) -> Sequence[Check]:
    return [
        _check("postgresql", lambda: postgresql_engine.reachable(url)),
        _check("postgresql durability", lambda: postgresql_engine.durability(url)),
        _check("postgresql schema", lambda: postgresql_engine.schema(url)),
    ]


def _check(name: str, run: Callable[[], Awaitable[Finding]]) -> Check:
    return Check(name=name, run=run, needed=True, todo=_REPORT, seconds=_SECONDS)
