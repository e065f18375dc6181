"""Secrets of the platform itself, the same for all its processes: functions on a connection."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, select

from voicethere.adapters.store import columns
from voicethere.adapters.store.tables import platform_secrets


def platform_secret(connection: Connection, name: str, make: Callable[[], bytes]) -> bytes:
    """The secret; where there was none, what `make` returns (of one process, where several ask at once)."""
    query = select(platform_secrets.c.value).where(platform_secrets.c.name == name)
    found: bytes | None = connection.execute(query).scalar_one_or_none()
    if found is not None:
        return found
    connection.execute(
        columns.insert(connection, platform_secrets)
        .values(name=name, value=make())
        .on_conflict_do_nothing(index_elements=["name"])
    )
    made: bytes = connection.execute(query).scalar_one()
    return made
