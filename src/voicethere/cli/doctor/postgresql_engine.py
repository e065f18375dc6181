"""The PostgreSQL of the distributed set-up: is it there, what does it promise, is its schema ours?

Only looks; the URL's password is never shown.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from voicethere.cli.doctor.findings import Finding, failed, in_thread, ok, warning

_OLDEST = 13
_CONNECT_SECONDS = 5
_SETTINGS = ("server_version", "server_encoding", "fsync", "synchronous_commit", "full_page_writes")
_REACH = "Start it, or correct --database-url (or VOICETHERE_DATABASE_URL): postgresql://user:password@host/database."
_HAS_TABLE = "SELECT to_regclass('alembic_version') IS NOT NULL"


class PostgresqlState(msgspec.Struct, frozen=True, kw_only=True):
    """`settings` as SHOW names them. `step` is the migration it is at, None before the first one."""

    settings: Mapping[str, str]
    recovering: bool
    step: str | None
    milliseconds: float


async def reachable(url: str) -> Finding:
    """Does it answer, as a primary, in a version and encoding that we can use?"""
    state = await _look(url)
    return state if isinstance(state, Finding) else judge_server(state)


def judge_server(state: PostgresqlState) -> Finding:
    """A primary of version 13 or newer, in UTF-8."""
    version = state.settings["server_version"]
    found = f"PostgreSQL {version} answers in {state.milliseconds:.1f} ms"
    major = re.match(r"\d+", version)
    if major is None or int(major[0]) < _OLDEST:
        return failed(found, f"Install PostgreSQL {_OLDEST} or newer.")
    if state.recovering:
        return failed(f"{found}, as a standby", "Name the primary: a standby stores nothing.")
    encoding = state.settings["server_encoding"]
    if encoding != "UTF8":
        return failed(
            f"{found}, encoded as {encoding}", "Make a database with CREATE DATABASE … ENCODING 'UTF8'."
        )
    return ok(found)


async def durability(url: str) -> Finding:
    """What survives when its machine dies?"""
    state = await _look(url)
    return state if isinstance(state, Finding) else judge_durability(state.settings)


def judge_durability(settings: Mapping[str, str]) -> Finding:
    """Committed must mean synced: the queue forgets an error after its commit."""
    found = ", ".join(
        f"{name} {settings[name]}" for name in ("fsync", "synchronous_commit", "full_page_writes")
    )
    if settings["fsync"] != "on":
        return warning(
            f"{found}: when its machine dies, any part of the database may be lost or broken",
            "Set `fsync = on` in postgresql.conf, and reload.",
        )
    if settings["synchronous_commit"] == "off":
        return warning(
            f"{found}: when its machine dies, errors that were stored in the last moments (under a second) "
            "are lost, and the queue has forgotten them",
            "Set `synchronous_commit = on`, or leave it out for this database and user (ALTER ROLE … SET).",
        )
    if settings["full_page_writes"] != "on":
        return warning(
            f"{found}: when its machine dies, half-written pages may break tables",
            "Set `full_page_writes = on`, unless the disk never writes half a page.",
        )
    return ok(found)


async def schema(url: str) -> Finding:
    """Is it migrated?"""
    state = await _look(url)
    if isinstance(state, Finding):
        return state
    return judge_schema(state.step, newest=await in_thread(newest_step))


def judge_schema(step: str | None, *, newest: str | None) -> Finding:
    """Every role migrates when it starts: an older schema is no problem, an unknown one may be."""
    if step is None:
        return ok("no schema yet: the first role that starts makes it")
    if step == newest:
        return ok(f"migrated to {step}, the newest")
    return warning(
        f"migrated to {step}; this version brings it to {newest}",
        "Nothing, where an older version wrote it: the first role that starts migrates it. Where a newer one "
        "did, use that version.",
    )


def newest_step() -> str | None:
    """The migration that this version would bring a database to."""
    from pathlib import Path

    from alembic.script import ScriptDirectory

    from voicethere.adapters.store import migrate

    return ScriptDirectory(str(Path(migrate.__file__).parent / "migrations")).get_current_head()


async def _look(url: str) -> PostgresqlState | Finding:
    """What it says of itself, or the finding that it cannot be asked."""
    return await in_thread(lambda: _ask(url))


def _ask(url: str) -> PostgresqlState | Finding:
    try:
        parameters = _parameters(url)
    except Exception:  # whatever a URL library says, it may repeat the password
        return failed("not the URL of a PostgreSQL database", _REACH)
    try:
        import psycopg
    except ImportError:  # the package, or the library it needs
        return failed(
            "the driver psycopg is not installed, or does not load",
            "pip install 'voicethere[server,postgres]'",
        )

    began = time.monotonic()
    try:
        with psycopg.connect(**parameters) as connection:
            connection.read_only = True
            settings = {name: str(_one(connection, f"SHOW {name}")) for name in _SETTINGS}
            recovering = bool(_one(connection, "SELECT pg_is_in_recovery()"))
            has_table = bool(_one(connection, _HAS_TABLE))
            step = _one(connection, "SELECT version_num FROM alembic_version") if has_table else None
    except psycopg.Error as error:
        return failed(f"PostgreSQL cannot be asked: {' '.join(str(error).split())}", _REACH)
    return PostgresqlState(
        settings=settings,
        recovering=recovering,
        step=None if step is None else str(step),
        milliseconds=(time.monotonic() - began) * 1000,
    )


def _parameters(url: str) -> dict[str, Any]:
    from sqlalchemy import make_url

    parsed = make_url(url)
    if parsed.drivername not in {"postgresql", "postgresql+psycopg"}:
        raise ValueError(parsed.drivername)
    given = parsed.set(drivername="postgresql+psycopg")
    parameters = given.get_dialect()().create_connect_args(given)[1]
    return {
        "connect_timeout": _CONNECT_SECONDS,
        "options": "-c statement_timeout=3000",
        "application_name": "voicethere doctor",
    } | dict(parameters)


def _one(connection: Any, query: str) -> Any:
    row = connection.execute(query).fetchone()
    return None if row is None else row[0]
